"""The debts of runs to MLflow and Evidently: kept in a spool, delivered when they are there, never in the way of a run."""

from worker.telemetry.delivery import Telemetry, make_telemetry
from worker.telemetry.owing import list_debts
from worker.telemetry.registry import has_version

__all__ = ["Telemetry", "has_version", "list_debts", "make_telemetry"]
