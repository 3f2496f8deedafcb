"""List which flows an instance of a kind has, and what a run of each is called."""

from __future__ import annotations

from collections.abc import Collection

from optaic.common.v1.flow_pb2 import FlowKind
from optaic.rules.kinds import FLOWS
from run_service.domain.errors import flow_not_found
from servicekit.enums import enum_word

# What a run of each flow is called.
_RUN_KINDS = {
    "refresh": "pipeline",
    "monitoring": "monitoring",
    "preview": "experiment",
    "training": "training",
    "inference": "inference",
    "optimize": "portfolio_optimization",
    "backtest": "backtest",
}
RUN_KINDS = tuple(_RUN_KINDS.values())


def run_kind(instance_id: str, instance_kind: str, flow_kind: str) -> str:
    """Return the kind of a run.

    Raises:
        NotFoundError: FLOW_NOT_FOUND, an instance of this kind has no such flow.
    """
    if flow_kind not in FLOWS.get(instance_kind, ()):
        raise flow_not_found(instance_id, flow_kind)
    return _RUN_KINDS[flow_kind]


def choose_flow(instance_id: str, available: Collection[int], wanted: int) -> int:
    """Return the wanted flow kind, or for 0 the default: the lowest number.

    Raises:
        NotFoundError: FLOW_NOT_FOUND.
    """
    if wanted in available:
        return wanted
    if wanted == 0 and available:
        return min(available)
    raise flow_not_found(instance_id, enum_word(FlowKind, wanted) if wanted in FlowKind.values()[1:] else "")
