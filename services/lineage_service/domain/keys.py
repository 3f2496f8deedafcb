"""The identity of a flow."""

from __future__ import annotations

from typing import NamedTuple


class FlowKey(NamedTuple):
    """The identity of a flow within its tenant; `flow_kind` is the lower-case name, like `refresh`."""

    instance_id: str
    flow_kind: str
