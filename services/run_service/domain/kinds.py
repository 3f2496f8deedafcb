"""Which flows an instance of a kind has, what a run of each is called, and which of them can run."""

from __future__ import annotations

from collections.abc import Collection

from servicekit.errors import NotFoundError, UnimplementedError

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
        raise NotFoundError("FLOW_NOT_FOUND", f"a {instance_kind} instance has no {flow_kind} flow")
    return kind


def check_computed(flow_kind: str, roles: Collection[str]) -> None:
    """Refuse a flow that no worker executes as it is: a run of it could only fail, or pretend.

    Raises:
        UnimplementedError: UNSUPPORTED_FLOW.
    """
    if flow_kind not in _COMPUTED or _OPTIMIZER in roles:
        raise UnimplementedError(
            "UNSUPPORTED_FLOW",
            f"{flow_kind} flows {'with an optimizer ' if _OPTIMIZER in roles else ''}are not computed yet",
            metadata={"flow_kind": flow_kind},
        )


def choose_flow(instance_id: str, available: Collection[int], wanted: int) -> int:
    """Return the flow kind to run: the wanted one or, for 0, the default, which is the lowest in number.

    Raises:
        NotFoundError: FLOW_NOT_FOUND.
    """
    if wanted in available:
        return wanted
    if wanted == 0 and available:
        return min(available)
    raise NotFoundError(
        "FLOW_NOT_FOUND", f"instance {instance_id} has no such flow", metadata={"instance_id": instance_id}
    )
