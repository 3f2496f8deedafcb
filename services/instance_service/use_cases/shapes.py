"""Small views on the protobuf resources: enum words, JSON of a Struct, etags; it decides nothing."""

from __future__ import annotations

import datetime as dt
import math
from typing import Any

from google.protobuf.struct_pb2 import Struct, Value
from google.protobuf.timestamp_pb2 import Timestamp

from instance_service.domain.flows import Edge
from optaic.common.v1.flow_pb2 import FlowKind
from optaic.definition.v1.definition_pb2 import DefinitionKind, DefinitionState
from optaic.instance.v1.instance_pb2 import EdgeKind, Flow, FlowEdge, Instance, InstanceKind, InstanceState
from optaic.instance.v1.spec_pb2 import DatasetSpec, SignalContract


def kind_word(kind: InstanceKind.ValueType) -> str:
    """Return an instance kind in lower case, as stored."""
    return InstanceKind.Name(kind).removeprefix("INSTANCE_KIND_").lower()


def kind_value(word: str) -> InstanceKind.ValueType:
    """Return the instance kind of a stored word."""
    return InstanceKind.Value(f"INSTANCE_KIND_{word.upper()}")


def definition_kind_word(kind: DefinitionKind.ValueType) -> str:
    """Return a definition kind in lower case, as stored; empty where unspecified."""
    return DefinitionKind.Name(kind).removeprefix("DEFINITION_KIND_").lower() if kind else ""


def definition_state_word(state: DefinitionState.ValueType) -> str:
    """Return a version's state in lower case, as stored; empty where unspecified."""
    return DefinitionState.Name(state).removeprefix("DEFINITION_STATE_").lower() if state else ""


def state_value(word: str) -> InstanceState.ValueType:
    """Return the instance state of a stored word."""
    return InstanceState.Value(f"INSTANCE_STATE_{word.upper()}")


def state_word(state: InstanceState.ValueType) -> str:
    """Return an instance state in lower case, as stored."""
    return InstanceState.Name(state).removeprefix("INSTANCE_STATE_").lower()


def flow_word(kind: FlowKind.ValueType) -> str:
    """Return a flow kind in lower case, as stored."""
    return FlowKind.Name(kind).removeprefix("FLOW_KIND_").lower()


def flow_value(word: str) -> FlowKind.ValueType:
    """Return the flow kind of a stored word."""
    return FlowKind.Value(f"FLOW_KIND_{word.upper()}")


def contract_words(contract: SignalContract) -> dict[str, Any]:
    """Return what a signal contract says, with enums in lower case; what it leaves open is left out."""
    given: dict[str, Any] = {
        "index_columns": sorted(contract.index_columns),
        "neutral_value": contract.neutral_value,
    }
    for bound in ("min_value", "max_value"):
        if contract.HasField(bound):
            given[bound] = getattr(contract, bound)
    if contract.nan_policy:
        given["nan_policy"] = (
            SignalContract.NanPolicy.Name(contract.nan_policy).removeprefix("NAN_POLICY_").lower()
        )
    if contract.bounds_policy:
        name = SignalContract.BoundsPolicy.Name(contract.bounds_policy)
        given["bounds_policy"] = name.removeprefix("BOUNDS_POLICY_").lower()
    return given


def json_of(struct: Struct) -> dict[str, Any]:
    """Return a Struct as JSON; whole numbers are integers.

    Raises:
        ValueError: It holds a number that JSON has not.
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
                raise ValueError(f"{number} is no JSON number")
            return int(number) if number.is_integer() and abs(number) < 2**53 else number
        case "string_value":
            return value.string_value
        case "bool_value":
            return value.bool_value
        case _:
            return None


def dataset_of(instance: Instance) -> DatasetSpec | None:
    """Return the composition of a dataset or signal."""
    match instance.WhichOneof("spec"):
        case "dataset":
            return instance.dataset
        case "signal":
            return instance.signal.dataset
        case _:
            return None


def etag_of(revision: int) -> str:
    """Return the etag of a revision; a condition that comes and goes does not move it."""
    return f"r{revision}"


def timestamp(time: dt.datetime) -> Timestamp:
    """Return a time as protobuf has it."""
    result = Timestamp()
    result.FromDatetime(time)
    return result


def flow_edge(edge: Edge) -> FlowEdge:
    """Return an edge as the flow shows it."""
    result = FlowEdge(role=edge.role, kind=EdgeKind.Value(f"EDGE_KIND_{edge.kind.upper()}"))
    result.upstream.instance_id = edge.upstream_instance_id
    result.upstream.flow_kind = flow_value(edge.upstream_flow_kind)
    return result


def edges_of(instance_id: str, flow: Flow) -> list[dict[str, str]]:
    """Return the stored form of a flow's edges, without the tenant."""
    return [
        {
            "instance_id": instance_id,
            "flow_kind": flow_word(flow.flow_kind),
            "upstream_instance_id": edge.upstream.instance_id,
            "upstream_flow_kind": flow_word(edge.upstream.flow_kind),
            "role": edge.role,
            "kind": EdgeKind.Name(edge.kind).removeprefix("EDGE_KIND_").lower(),
        }
        for edge in flow.upstreams
    ]
