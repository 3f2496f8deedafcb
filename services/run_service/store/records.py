"""Convert runs between their public message and the columns of their table."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

from google.protobuf import json_format, struct_pb2
from google.protobuf.message import Message
from google.protobuf.timestamp_pb2 import Timestamp
from sqlalchemy import Column, RowMapping
from sqlalchemy.dialects.postgresql import JSONB

from optaic.common.v1 import flow_pb2
from optaic.run.v1 import run_pb2
from run_service.domain.retries import RetryPolicy
from run_service.domain.statuses import RunStatus
from run_service.store.places import relocate_run
from servicekit.enums import enum_number, enum_word
from servicekit.times import set_time

_TIMES = ("submit_time", "start_time", "end_time", "scheduled_time")
_MESSAGES = ("parameters", "metrics", "base_version", "output_version", "error")
_PLAIN = (
    "run_id",
    "instance_id",
    "instance_revision",
    "run_number",
    "attempt",
    "orchestrator_run_id",
    "progress_pct",
    "progress_message",
    "outputs_uri",
    "model_artifact_version",
    "forced",
    "force_reason",
    "retry_of_run_id",
    "lineage_revision",
    "actor",
    "compute_fingerprint",
    "is_partial_range",
    "allow_deletion",
    "allow_deletion_reason",
    "allows_incremental",
    "full_because",
    "external_version",
    "covers_changes",
    "refresh_id",
)
_IDS = (
    "orchestrator_run_id",
    "retry_of_run_id",
    "refresh_id",
)  # absent: null in the table, empty in the message
_ENUMS: dict[str, Any] = {
    "flow_kind": flow_pb2.FlowKind,
    "kind": run_pb2.RunKind,
    "status": run_pb2.RunStatus,
    "trigger": run_pb2.RunTrigger,
    "mode": run_pb2.RunMode,
}


@dataclass(frozen=True)
class Record:
    """A run with the columns that no client sees."""

    run: run_pb2.Run
    status: RunStatus
    kind: str
    flow_kind: str
    instance_name: str
    revision: int
    last_event_id: str
    fencing_token: str
    executor: str
    retry_policy: RetryPolicy | None
    progress_event_time: datetime | None
    superseded_run_ids: frozenset[str] = frozenset()
    start_secret_hash: str = ""
    # Of the last line of its log, 1970 if it has none; None while that is not known.
    last_log_time: datetime | None = None
    # From where the tenant's data was moved, and where it is now; the URIs of the run are the new ones.
    moved_roots: Mapping[str, str] = field(default_factory=dict)


def time_of(moment: datetime) -> Timestamp:
    """Convert a time into a protobuf Timestamp."""
    stamp = Timestamp()
    set_time(stamp, moment)
    return stamp


def datetime_of(stamp: Timestamp) -> datetime:
    """Convert a protobuf Timestamp into an aware time in UTC."""
    return stamp.ToDatetime(tzinfo=UTC)


def message_json(message: Message) -> Any:
    """Convert a message into JSON; NaN and infinities in a Struct become null."""
    if isinstance(message, struct_pb2.Struct):
        return {name: _value_of(value) for name, value in message.fields.items()}
    return json_format.MessageToDict(message, preserving_proto_field_name=True)


def manifest_json(manifest: Iterable[run_pb2.Artifact]) -> list[dict[str, Any]]:
    """Convert a manifest into JSON, of which `record_of` makes it again."""
    return [
        {
            "name": each.name,
            "uri": each.uri,
            "size_bytes": each.size_bytes,
            "sha256": each.sha256,
            "media_type": each.media_type,
        }
        for each in manifest
    ]


def _value_of(value: struct_pb2.Value) -> Any:
    match value.WhichOneof("kind"):
        case "number_value":
            return value.number_value if math.isfinite(value.number_value) else None
        case "struct_value":
            return message_json(value.struct_value)
        case "list_value":
            return [_value_of(item) for item in value.list_value.values]
        case "string_value":
            return value.string_value
        case "bool_value":
            return value.bool_value
        case _:
            return None


def driver_value(column: Column[Any], value: Any) -> Any:
    """Return a value for a column as the driver takes it in a text of SQL."""
    return json.dumps(value) if isinstance(column.type, JSONB) and value is not None else value


def _get(run: Message, name: str) -> Any:
    """Return a field of a message, or None if it is absent."""
    value = getattr(run, name)
    return value if run.HasField(name) else None


def run_columns(run: run_pb2.Run) -> dict[str, Any]:
    """Convert a run into its public columns; JSON columns are Python values."""
    columns: dict[str, Any] = {name: getattr(run, name) for name in _PLAIN}
    for name in _IDS:
        columns[name] = columns[name] or None
    for name, enum in _ENUMS.items():
        columns[name] = enum_word(enum, getattr(run, name))
    for name in _TIMES:
        stamp = _get(run, name)
        columns[name] = datetime_of(stamp) if stamp is not None else None
    for name in _MESSAGES:
        message = _get(run, name)
        columns[name] = message_json(message) if message is not None else None
    columns["artifacts"] = dict(run.artifacts)
    columns["artifact_manifest"] = manifest_json(run.artifact_manifest)
    columns["input_versions"] = [message_json(version) for version in run.input_versions]
    columns["late_inputs"] = [message_json(each) for each in run.late_inputs]
    columns["code"] = [message_json(each) for each in run.code]
    columns["telemetry_pending"] = list(run.telemetry_pending)
    return columns


def record_of(row: RowMapping) -> Record:
    """Convert a row, which also has the columns `result` and `moved_roots`, into a record."""
    run = run_pb2.Run(**{name: row[name] for name in _PLAIN if row[name] is not None})
    for name, enum in _ENUMS.items():
        setattr(run, name, enum_number(enum, row[name]))
    for name in _TIMES:
        if row[name] is not None:
            set_time(getattr(run, name), row[name])
    for name in _MESSAGES:
        if row[name] is not None:
            message = getattr(run, name)
            message.SetInParent()
            json_format.ParseDict(row[name], message)
    run.artifacts.update(row["artifacts"])
    run.artifact_manifest.extend(run_pb2.Artifact(**entry) for entry in row["artifact_manifest"])
    for version in row["input_versions"]:
        json_format.ParseDict(version, run.input_versions.add())
    for late in row["late_inputs"]:
        json_format.ParseDict(late, run.late_inputs.add())
    run.telemetry_pending.extend(row["telemetry_pending"])
    for each in row["code"]:
        json_format.ParseDict(each, run.code.add(), ignore_unknown_fields=True)
    if run.status == run_pb2.RUN_STATUS_COMPLETED and row["result"]:
        result = getattr(run, row["kind"])
        result.SetInParent()
        fields = {name: value for name, value in row["result"].items() if value is not None}
        json_format.ParseDict(fields, result, ignore_unknown_fields=True)
    roots = row["moved_roots"] or {}
    relocate_run(run, row["tenant_id"], roots)
    policy = row["retry_policy"]
    return Record(
        run=run,
        status=RunStatus(row["status"]),
        kind=row["kind"],
        flow_kind=row["flow_kind"],
        instance_name=row["instance_name"],
        revision=row["revision"],
        last_event_id=row["last_event_id"],
        fencing_token=row["fencing_token"] or "",
        executor=row["executor"],
        retry_policy=retry_policy_of(policy) if policy else None,
        progress_event_time=row["progress_event_time"],
        superseded_run_ids=frozenset(row["superseded_run_ids"]),
        start_secret_hash=row["start_secret_hash"],
        last_log_time=row["last_log_time"],
        moved_roots=roots,
    )


def retry_policy_of(stored: Mapping[str, Any]) -> RetryPolicy:
    """Convert stored JSON into a policy; the inverse of `retry_policy_json`."""
    return RetryPolicy(
        max_retries=stored["max_retries"],
        is_exponential=stored["is_exponential"],
        delay=timedelta(seconds=stored["delay_seconds"]),
        max_delay=timedelta(seconds=stored["max_delay_seconds"]),
    )


def retry_policy_json(policy: RetryPolicy) -> dict[str, Any]:
    """Convert a policy into JSON."""
    return {
        "max_retries": policy.max_retries,
        "is_exponential": policy.is_exponential,
        "delay_seconds": policy.delay.total_seconds(),
        "max_delay_seconds": policy.max_delay.total_seconds(),
    }
