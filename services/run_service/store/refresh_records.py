"""Convert refreshes and their flows between their public messages and the columns of their tables."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import sqlalchemy as sa
from google.protobuf import json_format

from optaic.common.v1 import flow_pb2
from optaic.run.v1 import refresh_pb2
from run_service.domain.refreshing import Entry, FlowKey, Options, Progress, RefreshStatus, Skip
from run_service.store.records import message_json
from servicekit.enums import enum_number
from servicekit.times import set_time

_LONGEST_REASON = 500  # characters


@dataclass(frozen=True)
class StoredRefresh:
    """A refresh without its flows."""

    refresh_id: str
    status: RefreshStatus
    selection: refresh_pb2.RefreshSelection
    project_ids: frozenset[str] | None
    mode: str
    on_failure: str
    max_parallel_runs: int
    actor: str
    submit_time: datetime
    end_time: datetime | None = None
    revision: int = 1
    cancel_reason: str = ""

    @property
    def options(self) -> Options:
        """The options by which it goes on."""
        return Options(self.mode == "force", self.on_failure == "stop", self.max_parallel_runs)

    def message(self, counts: Mapping[Progress, int]) -> refresh_pb2.Refresh:
        """Convert it into its public message."""
        message = refresh_pb2.Refresh(
            refresh_id=self.refresh_id,
            status=enum_number(refresh_pb2.RefreshStatus, self.status.value),
            selection=self.selection,
            mode=enum_number(refresh_pb2.RefreshMode, self.mode),
            on_failure=enum_number(refresh_pb2.RefreshFailurePolicy, self.on_failure),
            max_parallel_runs=self.max_parallel_runs,
            actor=self.actor,
            revision=self.revision,
            counts=refresh_pb2.RefreshCounts(**{each.value: count for each, count in counts.items()}),
            cancel_reason=self.cancel_reason,
        )
        set_time(message.submit_time, self.submit_time)
        if self.end_time is not None:
            set_time(message.end_time, self.end_time)
        return message


def flow_message(key: FlowKey, entry: Entry, revision: int = 0) -> refresh_pb2.RefreshFlow:
    """Convert a flow of a refresh into its public message."""
    message = refresh_pb2.RefreshFlow(
        instance_name=entry.instance_name,
        status=enum_number(refresh_pb2.RefreshFlowStatus, entry.progress.value),
        reason=_shortened(entry.reason),
        run_id=entry.run_id,
        run_number=entry.run_number if entry.run_id else 0,
        is_joined=entry.is_joined,
        level=entry.level,
        is_target=entry.is_target,
        revision=revision,
    )
    message.flow.instance_id = key.instance_id
    message.flow.flow_kind = enum_number(flow_pb2.FlowKind, key.flow_kind)
    if entry.skip is not Skip.NONE:
        message.skip_reason = enum_number(refresh_pb2.RefreshSkipReason, entry.skip.value)
    return message


def _shortened(text: str) -> str:
    return text if len(text) <= _LONGEST_REASON else f"{text[:_LONGEST_REASON]}..."


def refresh_row(tenant_id: str, refresh: StoredRefresh) -> dict[str, Any]:
    """Convert a new refresh, which is due at once, into a row."""
    return {
        "tenant_id": tenant_id,
        "refresh_id": refresh.refresh_id,
        "status": refresh.status.value,
        "selection": message_json(refresh.selection),
        "project_ids": None if refresh.project_ids is None else sorted(refresh.project_ids),
        "mode": refresh.mode,
        "on_failure": refresh.on_failure,
        "max_parallel_runs": refresh.max_parallel_runs,
        "actor": refresh.actor,
        "submit_time": refresh.submit_time,
        "end_time": refresh.end_time,
        "revision": refresh.revision,
        "due_time": None if refresh.end_time else refresh.submit_time,
    }


def refresh_of(row: sa.RowMapping) -> StoredRefresh:
    """Convert a row into a refresh."""
    selection = json_format.ParseDict(
        row["selection"], refresh_pb2.RefreshSelection(), ignore_unknown_fields=True
    )
    return StoredRefresh(
        refresh_id=row["refresh_id"],
        status=RefreshStatus(row["status"]),
        selection=selection,
        project_ids=None if row["project_ids"] is None else frozenset(row["project_ids"]),
        **{
            name: row[name]
            for name in (
                "mode",
                "on_failure",
                "max_parallel_runs",
                "actor",
                "submit_time",
                "end_time",
                "revision",
                "cancel_reason",
            )
        },
    )


def entry_row(key: FlowKey, entry: Entry) -> dict[str, Any]:
    """Convert a flow of a refresh into a row."""
    return {
        "instance_id": key.instance_id,
        "flow_kind": key.flow_kind,
        "instance_name": entry.instance_name,
        "status": entry.progress.value,
        "skip_reason": entry.skip.value,
        "reason": _shortened(entry.reason),
        "run_id": entry.run_id or None,
        "run_number": entry.run_number,
        "is_joined": entry.is_joined,
        "level": entry.level,
        "is_target": entry.is_target,
        "attempt": entry.attempt,
        "is_refused": entry.is_refused,
    }


def entry_of(row: sa.RowMapping) -> Entry:
    """Convert a row into a flow of a refresh."""
    return Entry(
        instance_name=row["instance_name"],
        progress=Progress(row["status"]),
        skip=Skip(row["skip_reason"]),
        reason=row["reason"],
        run_id=row["run_id"] or "",
        run_number=row["run_number"],
        is_joined=row["is_joined"],
        level=row["level"],
        is_target=row["is_target"],
        attempt=row["attempt"],
        is_refused=row["is_refused"],
    )
