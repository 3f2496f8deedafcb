"""Read the audit trails of all services, and check that they are as they were sealed."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from typing import Any

from optaic.audit.v1 import audit_service_pb2 as api
from optaic.audit.v1.audit_pb2 import AuditEntry, AuditRecord, AuditSeal
from optaic.audit.v1.audit_service_pb2_grpc import AuditServiceStub
from optaic.client.connection import Connection
from optaic.client.definitions import all_pages, each_page
from optaic.rules.audit import Problem, Verification
from optaic.rules.pages import LARGEST_SIZE

SERVICES = ("instance", "run", "lineage", "status")


@dataclass(frozen=True)
class TrailVerification:
    """The findings about the trail of one service, which is intact if `problems` is empty."""

    service: str
    problems: Sequence[Problem]
    sealed_records: int
    unsealed: Sequence[AuditRecord]
    # The hash of the newest seal, hexadecimal; empty without seals. Keep it elsewhere: a trail whose end was cut off
    # verifies, but no longer has this seal.
    head: str


class Audit:
    """The audit trails of the caller's tenant."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    async def records(
        self,
        *,
        actor: str = "",
        method: str = "",
        resource: str = "",
        begin_time: datetime | None = None,
        end_time: datetime | None = None,
    ) -> list[AuditRecord]:
        """Return the records of all services in the order of their time; empty filters mean all."""
        request = api.ListAuditRecordsRequest(actor=actor, method=method, resource=resource)
        if begin_time is not None:
            request.begin_time.FromDatetime(begin_time)
        if end_time is not None:
            request.end_time.FromDatetime(end_time)
        found = await asyncio.gather(*(self._entries(service, request) for service in SERVICES))
        records = [entry.record for entries in found for entry in entries]
        return sorted(records, key=lambda record: (record.time.ToNanoseconds(), record.audit_id))

    async def verify(self) -> list[TrailVerification]:
        """Compute every seal of the tenant again from the records, and return what differs, for each service."""
        return list(await asyncio.gather(*map(self.verify_service, SERVICES)))

    async def verify_service(self, service: str) -> TrailVerification:
        """Compute every seal of one service again; the service is `instance`, `run`, `lineage` or `status`."""
        request = api.ListAuditRecordsRequest(page_size=LARGEST_SIZE, after_sequence=0)
        entries = each_page(partial(self._call, service, "ListAuditRecords"), request, "entries")
        entry = await anext(entries, None)
        verification = Verification(entry.record.tenant_id if entry else "")
        # Records are sealed all the time. A record and its seal are committed together, so that seals listed after a record
        # was read include its seal.
        while seals := await self._seals(service, verification.seal_number):
            for seal in seals:
                covered = []
                while entry is not None and entry.sequence <= seal.last_sequence:
                    covered.append(entry)
                    entry = await anext(entries, None)
                verification.check(seal, covered)
        if entry is not None:
            verification.report_unsealed(entry.sequence)
        unsealed = await self._entries(service, api.ListAuditRecordsRequest(unsealed=True))
        return TrailVerification(
            service,
            verification.problems,
            verification.records,
            [each.record for each in unsealed],
            verification.head.hex(),
        )

    async def _entries(self, service: str, wanted: api.ListAuditRecordsRequest) -> list[AuditEntry]:
        request = api.ListAuditRecordsRequest(page_size=LARGEST_SIZE)
        request.MergeFrom(wanted)
        return await all_pages(partial(self._call, service, "ListAuditRecords"), request, "entries")

    async def _seals(self, service: str, after: int) -> list[AuditSeal]:
        request = api.ListAuditSealsRequest(page_size=LARGEST_SIZE, after_seal_number=after)
        return await all_pages(partial(self._call, service, "ListAuditSeals"), request, "seals")

    async def _call(self, service: str, method: str, request: Any) -> Any:
        return await self._connection.call(service, AuditServiceStub, method, request)
