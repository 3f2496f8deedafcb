"""The facts that a probe of a source states."""

from __future__ import annotations

from typing import NamedTuple

from lineage_service.domain.keys import FlowKey


class ProbeFact(NamedTuple):
    """The token of a flow's source after its run `run_number`; of several facts, that with the largest number counts."""

    flow: FlowKey
    run_number: int
    source_token: str
    probe_number: int
    event_id: str = ""
