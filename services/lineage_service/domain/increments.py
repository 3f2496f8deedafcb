"""The rule for when a run may compute only what its inputs have changed, and keep the rest of the flow's output."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from lineage_service.domain.flows import Flow


class InputChange(NamedTuple):
    """The difference between the version of an input that was read last and the newest one.

    `is_known` means that each version in between says which dates it changed.
    """

    role: str
    consumed_version: int  # 0: none was read
    consumed_readers_hash: str
    is_known: bool
    start: str  # the dates in which they differ; empty if nothing moved
    end: str


def why_full(flow: Flow, inputs: Sequence[tuple[Flow, Sequence[InputChange]]]) -> str:
    """Return why a run of the flow has to compute all dates; empty if it may compute the changed ones.

    The text names no upstream, because the reader of a run may not see each of them.
    """
    if not flow.version:
        return "there is no version to build on"
    if flow.fingerprint != flow.computed_fingerprint:
        return "the version before was computed with another configuration"
    if flow.completed_run_number != flow.full_run_number:
        return "the run before computed a range of dates"
    if flow.is_invalidated:
        return "the version before was declared invalid"
    for upstream, changes in inputs:
        for change in changes:
            if problem := _why_unknown(upstream, change):
                return problem
    return ""


def _why_unknown(upstream: Flow, change: InputChange) -> str:
    role = f"an input of the role {change.role}"
    if not change.consumed_version or not upstream.version:
        return f"{role} was not read by the run before"
    if not upstream.readers_hash or change.consumed_readers_hash != upstream.readers_hash:
        return f"{role} is read in another way than before"
    if change.consumed_version != upstream.version and not change.is_known:
        return f"{role} does not say which dates have changed"
    return ""
