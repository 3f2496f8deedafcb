"""Derive the status of an instance from the statuses of its flows; pure functions."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Sequence
from functools import lru_cache

from optaic.rules.kinds import COMPONENT_KINDS, is_asked_for
from optaic.rules.statuses import MAJORITY, MIN_SEVERITY, NOT_INITIALIZED, READY, SEVERITY


@lru_cache(maxsize=1024)
def severity_order(status_priority: tuple[str, ...]) -> tuple[str, ...]:
    """Return all statuses, most severe first, as a contract's priority gives them.

    A status that the priority leaves out comes right after the last one that is more severe by the default
    order. READY is last whatever the priority says: the most severe status is READY only if all are.
    """
    order = [status for status in status_priority if status != READY]
    for rank, status in enumerate(SEVERITY[:-1]):
        if status not in order:
            more_severe = [order.index(other) for other in SEVERITY[:rank]]
            order.insert(max(more_severe, default=-1) + 1, status)
    return (*order, READY)


def aggregate(
    statuses: Collection[str], status_priority: Sequence[str] = (), method: str = MIN_SEVERITY
) -> str:
    """Return the status of an instance whose flows that count have these statuses; without any: NOT_INITIALIZED.

    It is the most severe one. With the method `majority` it is the one that more than half of the flows have, if there is one.
    """
    if not statuses:
        return NOT_INITIALIZED
    if method == MAJORITY:
        ((status, count),) = Counter(statuses).most_common(1)
        if 2 * count > len(statuses):
            return status
    return min(statuses, key=severity_order(tuple(status_priority)).index)


def is_aggregated(instance_kind: str, flow_kind: str, required_flows: Collection[str] = ()) -> bool:
    """Return whether a flow counts for the status: one that the contract requires, if it requires any.

    The monitoring of a dataset never counts.
    """
    return not is_asked_for(instance_kind, flow_kind) and (not required_flows or flow_kind in required_flows)


def has_status(instance_kind: str) -> bool:
    """Return whether instances of a kind have a status; components have none of their own."""
    return instance_kind not in COMPONENT_KINDS
