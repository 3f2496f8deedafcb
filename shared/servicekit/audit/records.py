"""Make audit records and the rows that store them."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from google.protobuf import descriptor_pool

from optaic.audit.v1.audit_pb2 import (
    AUDIT_DECISION_ALLOWED,
    AUDIT_DECISION_UNCHANGED,
    AuditDecision,
    AuditRecord,
    audited,
)
from redaction import redact
from servicekit.changes import Change
from servicekit.context import RequestContext
from servicekit.ids import new_id
from servicekit.times import set_time

_LONGEST_REASON = 1_000  # characters


def is_audited(method: str) -> bool:
    """Return whether the contract says that calls of a method leave a record; the method is `/<service>/<name>`."""
    service, _, name = method.removeprefix("/").partition("/")
    try:
        options = descriptor_pool.Default().FindServiceByName(service).methods_by_name[name].GetOptions()
    except KeyError:
        return False
    return bool(options.Extensions[audited])


def make_record(
    request: RequestContext, method: str, peer: str, time: datetime, decision: AuditDecision.ValueType
) -> AuditRecord:
    """Return the record of one call that names no resource yet."""
    record = AuditRecord(
        audit_id=new_id(),
        tenant_id=request.tenant_id,
        actor=request.actor,
        roles=sorted(request.roles),
        peer=host_of(peer),
        method=method.removeprefix("/"),
        decision=decision,
        count=1,
        request_id=request.request_id,
    )
    set_time(record.time, time)
    return record


def begin_change(request: RequestContext, method: str, peer: str, time: datetime) -> Change:
    """Return the change of a call that has changed nothing so far."""
    record = make_record(request, method, peer, time, AUDIT_DECISION_UNCHANGED)

    def row(change: Change) -> dict[str, Any]:
        if not change.resource:
            return row_of(record)
        made = AuditRecord(
            audit_id=new_id(),  # a call may change several resources
            resource=change.resource,
            revision_before=change.before,
            revision_after=change.after,
            reason=redact(change.reason)[:_LONGEST_REASON],
            decision=AUDIT_DECISION_ALLOWED,
        )
        allowed = AuditRecord()
        allowed.CopyFrom(record)
        allowed.MergeFrom(made)
        return row_of(allowed)

    return Change(row)


def row_of(record: AuditRecord) -> dict[str, Any]:
    """Convert a record into the columns of the table `audit_records`."""
    return {
        "tenant_id": record.tenant_id,
        "audit_id": record.audit_id,
        "time": record.time.ToDatetime(tzinfo=UTC),
        "actor": record.actor,
        "method": record.method,
        "resource": record.resource,
        "content": record.SerializeToString(deterministic=True),
    }


def host_of(peer: str) -> str:
    """Return the address in gRPC's name of a peer, such as `ipv4:127.0.0.1:50412`, without the port."""
    kind, _, rest = peer.partition(":")
    if kind not in {"ipv4", "ipv6"}:
        return kind
    return rest.rpartition(":")[0].replace("%5B", "").replace("%5D", "").strip("[]")
