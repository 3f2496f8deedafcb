"""How the statuses of flows become the status of their instance; pure, standard library only."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from functools import lru_cache

ERROR, STALE, RUNNING, NOT_INITIALIZED, READY = "ERROR", "STALE", "RUNNING", "NOT_INITIALIZED", "READY"
DEFAULT_ORDER = (ERROR, STALE, RUNNING, NOT_INITIALIZED, READY)
_COMPONENT_KINDS = frozenset({"pipeline", "store", "accessor"})
_KINDS_WATCHED_FROM_OUTSIDE = frozenset({"dataset", "signal"})


@lru_cache(maxsize=1024)
def severity_order(status_priority: tuple[str, ...]) -> tuple[str, ...]:
    """Return all statuses, most severe first, as a contract's priority gives them.

    A status that the priority leaves out comes right after the last one that is more severe by the default
    order. READY is last whatever the priority says: an instance is READY only if all of its flows are.
    """
    order = [status for status in status_priority if status != READY]
    for rank, status in enumerate(DEFAULT_ORDER[:-1]):
        if status not in order:
            more_severe = [order.index(other) for other in DEFAULT_ORDER[:rank]]
            order.insert(max(more_severe, default=-1) + 1, status)
    return (*order, READY)


def aggregate(statuses: Collection[str], status_priority: Sequence[str] = ()) -> str:
    """Return the most severe status (`min_severity`); without any flow: NOT_INITIALIZED."""
    if not statuses:
        return NOT_INITIALIZED
    return min(statuses, key=severity_order(tuple(status_priority)).index)


def is_aggregated(instance_kind: str, flow_kind: str) -> bool:
    """Return whether a flow counts: the monitoring of a dataset says nothing about whether its data is there."""
    return not (flow_kind == "monitoring" and instance_kind in _KINDS_WATCHED_FROM_OUTSIDE)


def has_status(instance_kind: str) -> bool:
    """Return whether instances of a kind have a status; components have none of their own."""
    return instance_kind not in _COMPONENT_KINDS
