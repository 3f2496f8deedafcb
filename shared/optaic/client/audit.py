"""Read the audit trails of all services, and check that they are as they were sealed."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
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
        records = _Records(partial(self._list_sealed, service))
        first = await records.peek()
        verification = Verification(first.record.tenant_id if first else "")
        # Records are sealed all the time. A record and its seal are committed together, so that seals listed after a record
        # was read include its seal.
        while seals := await self._seals(service, verification.seal_number):
            for seal in seals:
                verification.check(seal, await records.take(seal.last_sequence))
        if (left := await records.peek()) is not None:
            verification.report_unsealed(left.sequence)
        unsealed = await self._entries(service, api.ListAuditRecordsRequest(unsealed=True))
        return TrailVerification(
            service,
            verification.problems,
            verification.records,
            [each.record for each in unsealed],
            verification.head.hex(),
        )

    def _list_sealed(self, service: str, after: int) -> AsyncIterator[AuditEntry]:
        request = api.ListAuditRecordsRequest(page_size=LARGEST_SIZE, after_sequence=after)
        return each_page(partial(self._call, service, "ListAuditRecords"), request, "entries")

    async def _entries(self, service: str, wanted: api.ListAuditRecordsRequest) -> list[AuditEntry]:
        request = api.ListAuditRecordsRequest(page_size=LARGEST_SIZE)
        request.MergeFrom(wanted)
        return await all_pages(partial(self._call, service, "ListAuditRecords"), request, "entries")

    async def _seals(self, service: str, after: int) -> list[AuditSeal]:
        request = api.ListAuditSealsRequest(page_size=LARGEST_SIZE, after_seal_number=after)
        return await all_pages(partial(self._call, service, "ListAuditSeals"), request, "seals")

    async def _call(self, service: str, method: str, request: Any) -> Any:
        return await self._connection.call(service, AuditServiceStub, method, request)


class _Records:
    """The sealed records of a service in their order, also those that are sealed while it reads."""

    def __init__(self, list_after: Callable[[int], AsyncIterator[AuditEntry]]) -> None:
        self._list_after = list_after
        self._entries = list_after(0)
        self._waiting: AuditEntry | None = None  # the next one, once it was asked for
        self._read = 0  # the sequence number of the last one that was taken

    async def peek(self) -> AuditEntry | None:
        """Return the next record without taking it; None if there is none so far."""
        if self._waiting is None:
            self._waiting = await anext(self._entries, None)
        return self._waiting

    async def take(self, last: int) -> list[AuditEntry]:
        """Take the records up to a sequence number, as far as they are there."""
        taken = await self._take_listed(last)
        if self._waiting is None and self._read < last:  # they were sealed after they had been listed
            self._entries = self._list_after(self._read)
            taken += await self._take_listed(last)
        return taken

    async def _take_listed(self, last: int) -> list[AuditEntry]:
        taken = []
        while (entry := await self.peek()) is not None and entry.sequence <= last:
            taken.append(entry)
            self._waiting, self._read = None, entry.sequence
        return taken
