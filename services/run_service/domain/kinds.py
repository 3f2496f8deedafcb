"""Which flows an instance of a kind has, what a run of each is called, and which of them can run."""

from __future__ import annotations

from collections.abc import Collection

from run_service.domain.errors import flow_not_found, kind_has_no_flow, unsupported_flow

_KINDS = {
    ("dataset", "refresh"): "pipeline",
    ("dataset", "monitoring"): "monitoring",
    ("signal", "refresh"): "pipeline",
    ("signal", "monitoring"): "monitoring",
    ("experiment", "preview"): "experiment",
    ("model", "training"): "training",
    ("model", "inference"): "inference",
    ("model", "monitoring"): "monitoring",
    ("portfolio_optimizer", "optimize"): "portfolio_optimization",
    ("backtest", "backtest"): "backtest",
}
RUN_KINDS = tuple(dict.fromkeys(_KINDS.values()))
_COMPUTED = frozenset({"refresh", "backtest"})  # flow kinds that the worker executes
_OPTIMIZER = "optimizer"  # the role in a backtest that the worker's procedure does not know yet


def run_kind(instance_kind: str, flow_kind: str) -> str:
    """Return the run's kind.

    Raises:
        NotFoundError: FLOW_NOT_FOUND, an instance of this kind has no such flow.
    """
    kind = _KINDS.get((instance_kind, flow_kind))
    if kind is None:
        raise kind_has_no_flow(instance_kind, flow_kind)
    return kind


def check_computed(flow_kind: str, roles: Collection[str]) -> None:
    """Refuse a flow that no worker executes as it is: a run of it could only fail, or pretend.

    Raises:
        UnimplementedError: UNSUPPORTED_FLOW.
    """
    if flow_kind not in _COMPUTED or _OPTIMIZER in roles:
        raise unsupported_flow(flow_kind, has_optimizer=_OPTIMIZER in roles)


def choose_flow(instance_id: str, available: Collection[int], wanted: int) -> int:
    """Return the flow kind to run: the wanted one or, for 0, the default, which is the lowest in number.

    Raises:
        NotFoundError: FLOW_NOT_FOUND.
    """
    if wanted in available:
        return wanted
    if wanted == 0 and available:
        return min(available)
    raise flow_not_found(instance_id)
