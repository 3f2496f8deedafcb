"""The part of an instance's revision that lineage stores: its flows and their upstreams."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

from lineage_service.domain.freshness import Policy
from lineage_service.domain.keys import FlowKey

# The number of the protobuf EdgeKind of an upstream whose definition and settings alone count. Such an edge is stored and
# shown, but never connected: no version is read over it, so it moves, blocks and orders nothing.
SCHEMA = 2


class EdgeSpec(NamedTuple):
    """One upstream to which an instance's revision connects a flow; `kind` is the number of the protobuf EdgeKind."""

    upstream: FlowKey
    role: str
    kind: int


class FlowSpec(NamedTuple):
    """One flow as an instance's revision defines it."""

    flow_kind: str
    fingerprint: str
    upstreams: tuple[EdgeSpec, ...]
    fingerprint_change: str = ""
    # A check found that the output of this run equals what a run with that fingerprint would produce.
    verified_run_number: int = 0
    verified_fingerprint: str = ""
    policy: Policy | None = None


@dataclass(frozen=True)
class Snapshot:
    """The part of an instance that lineage needs, as of one revision; a newer revision replaces all of it."""

    instance_id: str
    revision: int
    name: str
    kind: int
    flows: tuple[FlowSpec, ...]
    is_deleted: bool = False
    event_id: str = ""
