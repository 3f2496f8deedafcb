"""Convert between protobuf resources and plain values: enum words, JSON of a Struct, etags, timestamps."""

from __future__ import annotations

import datetime as dt
import math
from typing import Any

from google.protobuf.struct_pb2 import Struct, Value
from google.protobuf.timestamp_pb2 import Timestamp

from instance_service.domain.flows import Edge
from optaic.common.v1.flow_pb2 import FlowKind
from optaic.instance.v1.instance_pb2 import EdgeKind, Flow, FlowEdge, Instance
from optaic.instance.v1.spec_pb2 import DatasetSpec, MonitoringConfig, SignalContract
from optaic.rules.numbers import LARGEST_WHOLE
from servicekit.enums import enum_number, enum_word
from servicekit.times import set_time


def contract_words(contract: SignalContract) -> dict[str, Any]:
    """Convert a signal contract to a dictionary with lower-case enum words; unset fields are omitted."""
    given: dict[str, Any] = {
        "index_columns": sorted(contract.index_columns),
        "neutral_value": contract.neutral_value,
    }
    for bound in ("min_value", "max_value"):
        if contract.HasField(bound):
            given[bound] = getattr(contract, bound)
    if contract.nan_policy:
        given["nan_policy"] = enum_word(SignalContract.NanPolicy, contract.nan_policy)
    if contract.bounds_policy:
        given["bounds_policy"] = enum_word(SignalContract.BoundsPolicy, contract.bounds_policy)
    return given


def json_of(struct: Struct) -> dict[str, Any]:
    """Convert a protobuf Struct to JSON values; whole numbers become integers.

    Raises:
        ValueError: The struct holds a number that JSON cannot express, such as NaN.
    """
    return {key: _json(value) for key, value in struct.fields.items()}


def _json(value: Value) -> Any:
    match value.WhichOneof("kind"):
        case "struct_value":
            return json_of(value.struct_value)
        case "list_value":
            return [_json(item) for item in value.list_value.values]
        case "number_value":
            number = value.number_value
            if not math.isfinite(number):
                raise ValueError(f"{number} is not a JSON number; use a finite number")
            return int(number) if number.is_integer() and abs(number) <= LARGEST_WHOLE else number
        case "string_value":
            return value.string_value
        case "bool_value":
            return value.bool_value
        case _:
            return None


def dataset_of(instance: Instance) -> DatasetSpec | None:
    """Return the dataset spec of a dataset or signal; None for other kinds."""
    match instance.WhichOneof("spec"):
        case "dataset":
            return instance.dataset
        case "signal":
            return instance.signal.dataset
        case _:
            return None


def monitoring_of(instance: Instance) -> MonitoringConfig:
    """Return what an instance says of its monitoring; empty for kinds that have none."""
    dataset = dataset_of(instance)
    return instance.model.monitoring if dataset is None else dataset.monitoring


def etag_of(revision: int) -> str:
    """Return the etag of a revision; setting or clearing a condition does not change it."""
    return f"r{revision}"


def timestamp(time: dt.datetime) -> Timestamp:
    """Convert a datetime to a protobuf Timestamp."""
    result = Timestamp()
    set_time(result, time)
    return result


def flow_edge(edge: Edge) -> FlowEdge:
    """Convert an edge to the message that the flow shows."""
    result = FlowEdge(role=edge.role, kind=enum_number(EdgeKind, edge.kind))
    result.upstream.instance_id = edge.upstream_instance_id
    result.upstream.flow_kind = enum_number(FlowKind, edge.upstream_flow_kind)
    return result


def edges_of(instance_id: str, flow: Flow) -> list[dict[str, str]]:
    """Return a flow's edges as they are stored, without the tenant."""
    return [
        {
            "instance_id": instance_id,
            "flow_kind": enum_word(FlowKind, flow.flow_kind),
            "upstream_instance_id": edge.upstream.instance_id,
            "upstream_flow_kind": enum_word(FlowKind, edge.upstream.flow_kind),
            "role": edge.role,
            "kind": enum_word(EdgeKind, edge.kind),
        }
        for edge in flow.upstreams
    ]
