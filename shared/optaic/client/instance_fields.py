"""The fields of an instance that a caller may set, for editors and type checkers; the services check the values."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import timedelta
from typing import Any, TypedDict

from google.protobuf.message import Message

Given = Mapping[str, Any] | Message  # plain values, or the message itself


class InstanceFields(TypedDict, total=False):
    """Values of an instance: what it is, and everything else that may be set; names that end in `_json` are other known names."""

    description: str
    owner: str
    labels: Mapping[str, str]
    dataset: Given
    signal: Given
    experiment: Given
    model: Given
    portfolio_optimizer: Given
    backtest: Given
    pipeline: Given
    store: Given
    accessor: Given
    definition_id: str
    definition_resource_id: str
    definition_version_id: str
    definition_name: str
    definition_version: str
    track_newest: bool
    config: Given
    config_json: Given
    schedule: Given
    schedule_json: Given
    assets_json: Given
    signals_json: Given | Sequence[Any]
    date_range_json: Given
    upstream_refs: Sequence[Given]
    freshness_policy: Given
    status_aggregation_contract: Given
    auto_refresh: Given
    probe_interval: timedelta | float  # seconds


class InstanceChanges(InstanceFields, total=False):
    """Values of an instance that may be changed later."""

    name: str
