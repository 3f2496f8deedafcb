"""The loops that make outside systems match the instances; each step compares present states, not events."""

from instance_service.reconcile.drift import DriftWatch
from instance_service.reconcile.pairings import (
    DeploymentPairing,
    ExperimentPairing,
    Pairing,
    ProjectPairing,
)
from instance_service.reconcile.plans import PlanWatch
from instance_service.reconcile.reconciler import Reconciler

__all__ = [
    "DeploymentPairing",
    "DriftWatch",
    "ExperimentPairing",
    "Pairing",
    "PlanWatch",
    "ProjectPairing",
    "Reconciler",
]
