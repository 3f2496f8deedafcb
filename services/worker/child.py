"""The child process of a run, a removal or a probe: the only process that executes user code. It talks to its parent, not to services."""

from __future__ import annotations

import contextlib
import math
import pickle
import socket
import sys
import threading
from dataclasses import dataclass, field
from typing import Any, cast

import redaction
from optaic import storage
from optaic.common.v1 import flow_pb2
from optaic.plugins import DateRange
from optaic.rules.limits import longest_text
from optaic.run.v1 import run_report_service_pb2
from worker import child_logging, frames
from worker.computing import Output, compute
from worker.data_removal import Removal, remove_by_stores
from worker.failures import describe_error, to_text
from worker.locations import FlowLocation
from worker.recipe import Recipe
from worker.source_probe import SourceProbe, probe
from worker.sources import access
from worker.sources.access import SourceAccess

_LONGEST_PROGRESS = longest_text(run_report_service_pb2.HeartbeatRequest, "progress_message")
# The field of a completion for each message that a kind of run results in, by the message's name.
_RESULT_FIELDS = {
    field.message_type.full_name: field.name
    for field in run_report_service_pb2.CompleteRunRequest.DESCRIPTOR.oneofs_by_name["result"].fields
    if field.message_type is not None
}


@dataclass(frozen=True)
class Task:
    """The computation that a child executes."""

    recipe: Recipe
    location: FlowLocation
    run_id: str
    log_level: str
    sources: SourceAccess = field(default_factory=SourceAccess)  # what it may read, and the secrets for it
    storage: storage.Access = field(default_factory=storage.Access)  # to the tenant's own data


def run(work: socket.socket) -> None:
    """Compute the one task that arrives, and answer with its result or its failure."""
    order = frames.receive(work)
    if order is None:
        return
    task: Task | Removal | SourceProbe = pickle.loads(order[1])  # noqa: S301 - it comes from the process that started this one
    child_logging.configure(task.log_level)
    if isinstance(task, Task | SourceProbe):
        access.install(task.sources)
    if isinstance(task, Task | Removal):
        storage.install(task.storage)
        redaction.remember(task.storage.secrets)
    sending = threading.Lock()  # user code may tell progress from any thread

    def send(kind: frames.Kind, payload: bytes) -> None:
        with contextlib.suppress(OSError, ValueError):  # what was printed comes before what is said
            sys.stdout.flush()
        with sending:
            work.sendall(frames.pack(kind, payload))

    def tell(fraction: float, message: str) -> None:
        news = run_report_service_pb2.HeartbeatRequest(
            progress_pct=min(100.0, max(0.0, 100.0 * fraction)),
            progress_message=to_text(message, _LONGEST_PROGRESS),
        )
        send(frames.Kind.PROGRESS, news.SerializeToString())

    try:
        request = run_report_service_pb2.CompleteRunRequest()
        if isinstance(task, Removal):
            remove_by_stores(task)
        elif isinstance(task, SourceProbe):
            request.output_version.source_token = probe(task)
        else:
            output = compute(task.recipe, task.location, task.run_id, tell)
            request = _describe(output, task.location.outputs_uri(task.run_id))
    except BaseException as error:  # noqa: BLE001 - whatever user code raises is what the run reports
        send(frames.Kind.FAILURE, describe_error(error).pack())
    else:
        send(frames.Kind.RESULT, request.SerializeToString())


def _describe(output: Output, outputs_uri: str) -> run_report_service_pb2.CompleteRunRequest:
    changed = output.changed or DateRange()
    request = run_report_service_pb2.CompleteRunRequest(
        artifacts=output.artifacts,
        outputs_uri=outputs_uri,
        output_version=flow_pb2.VersionRef(
            uri=output.uri,
            physical_version=output.physical_version,
            digest=output.digest,
            last_data_date=output.last_data_date,
            readers_hash=output.readers_hash,
            base_readers_hash=output.base_readers_hash,
            change_start=str(changed.start or ""),
            change_end=str(changed.end or ""),
            former_digest=output.former_digest,
            source_token=output.source_token,
        ),
        is_partial_range=output.is_partial_range,
    )
    if output.affected is not None:
        request.affected_dates.SetInParent()
        if output.affected.start is not None:
            request.affected_dates.start = str(output.affected.start)
            request.affected_dates.end = str(output.affected.end)
    for name, value in output.metrics.items():
        # JSON has no NaN and no infinity.
        is_number = not isinstance(value, float) or math.isfinite(value)
        request.metrics[name] = cast("Any", value) if is_number else None
    getattr(request, _RESULT_FIELDS[type(output.result).DESCRIPTOR.full_name]).CopyFrom(output.result)
    return request
