"""Answer the RPCs of AuditService, which are the same in every service."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from google.protobuf.timestamp_pb2 import Timestamp

from optaic.audit.v1 import audit_service_pb2 as api
from optaic.audit.v1.audit_service_pb2_grpc import AuditServiceServicer
from optaic.rules.pages import DEFAULT_SIZE
from servicekit.audit import storage
from servicekit.context import current
from servicekit.database import Database
from servicekit.pages import PageTokens, fit
from servicekit.schema import audit_records
from servicekit.signing import Signer


class AuditServicer(AuditServiceServicer):
    """Answers from the database of the service that serves it."""

    def __init__(self, database: Database, signer: Signer) -> None:
        self._database = database
        self._signer = signer

    async def ListAuditRecords(
        self, request: api.ListAuditRecordsRequest, _context: Any
    ) -> api.ListAuditRecordsResponse:
        tenant_id, table = current().tenant_id, audit_records.c
        in_sequence = request.HasField("after_sequence")
        filters = api.ListAuditRecordsRequest()
        filters.CopyFrom(request)
        filters.ClearField("page_token")
        filters.ClearField("page_size")
        tokens = PageTokens(
            self._signer, tenant_id, "ListAuditRecords", filters.SerializeToString(deterministic=True)
        )
        conditions = [
            column == value
            for column, value in (
                (table.actor, request.actor),
                (table.method, request.method),
                (table.resource, request.resource),
            )
            if value
        ]
        if request.HasField("begin_time"):
            conditions.append(table.time >= _moment(request.begin_time))
        if request.HasField("end_time"):
            conditions.append(table.time < _moment(request.end_time))
        if request.unsealed:
            conditions.append(table.sequence.is_(None))
        if in_sequence:
            conditions.append(table.sequence > request.after_sequence)
        if position := tokens.decode(request.page_token):
            conditions.append(
                table.sequence > position["sequence"]
                if in_sequence
                else table.audit_id > position["audit_id"]
            )
        size = request.page_size or DEFAULT_SIZE
        async with self._database.read(tenant_id) as connection:
            rows = await storage.list_records(
                connection, tenant_id, conditions, in_sequence=in_sequence, most=size + 1
            )
        page = fit(rows, size, lambda row: row.entry.ByteSize())
        response = api.ListAuditRecordsResponse(entries=[row.entry for row in page])
        if len(rows) > len(page):
            last = page[-1]
            response.next_page_token = tokens.encode(
                {"sequence": last.entry.sequence, "audit_id": last.audit_id}
            )
        return response

    async def ListAuditSeals(
        self, request: api.ListAuditSealsRequest, _context: Any
    ) -> api.ListAuditSealsResponse:
        tenant_id = current().tenant_id
        tokens = PageTokens(self._signer, tenant_id, "ListAuditSeals", request.after_seal_number)
        after = tokens.decode(request.page_token).get("seal_number", request.after_seal_number)
        size = request.page_size or DEFAULT_SIZE
        async with self._database.read(tenant_id) as connection:
            seals = await storage.list_seals(connection, tenant_id, after, size + 1)
        response = api.ListAuditSealsResponse(seals=seals[:size])
        if len(seals) > size:
            response.next_page_token = tokens.encode({"seal_number": seals[size - 1].seal_number})
        return response


def _moment(time: Timestamp) -> datetime:
    return time.ToDatetime(tzinfo=UTC)
