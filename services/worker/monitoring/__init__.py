"""Compare the newest sessions of a dataset or a model with those before; it reads no store and calls no service."""

from worker.monitoring.comparison import Findings, Labels, Subject, monitor

__all__ = ["Findings", "Labels", "Subject", "monitor"]
