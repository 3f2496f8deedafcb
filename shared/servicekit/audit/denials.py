"""Count denied calls: one audit record for each caller, method and minute, so that nobody fills the trail with refusals."""

from __future__ import annotations

from collections import Counter
from datetime import datetime, timedelta

import structlog

from optaic.audit.v1.audit_pb2 import AUDIT_DECISION_DENIED, AuditRecord
from servicekit.audit import storage
from servicekit.audit.records import make_record, row_of
from servicekit.clock import Clock
from servicekit.context import RequestContext
from servicekit.database import Database

MOST_CALLERS = 10_000  # callers and methods of the minutes that are not written yet
MOST_CALLERS_OF_TENANT = 1_000  # so that no tenant's denied calls leave those of the others without a record
_MINUTE = timedelta(minutes=1)
_log = structlog.get_logger(__name__)
_Key = tuple[str, str, str, datetime]


class Denials:
    """The denied calls of this process that are not written yet."""

    def __init__(self, database: Database, clock: Clock) -> None:
        self._database = database
        self._clock = clock
        self._records: dict[_Key, AuditRecord] = {}
        self._by_tenant: Counter[str] = Counter()
        self._uncounted = 0

    def count(self, request: RequestContext, method: str, peer: str) -> None:
        """Count a call that was denied to an identified caller."""
        now = self._clock.now()
        key = (request.tenant_id, request.actor, method, now.replace(second=0, microsecond=0))
        if (known := self._records.get(key)) is not None:
            known.count += 1
        elif (
            len(self._records) < MOST_CALLERS and self._by_tenant[request.tenant_id] < MOST_CALLERS_OF_TENANT
        ):
            self._records[key] = make_record(request, method, peer, now, AUDIT_DECISION_DENIED)
            self._by_tenant[request.tenant_id] += 1
        else:
            self._uncounted += 1

    async def step(self) -> bool:
        """Write the records of the minutes that have passed."""
        passed = self._clock.now() - _MINUTE
        await self._write([key for key in self._records if key[3] <= passed])
        return False

    async def close(self) -> None:
        """Write everything."""
        await self._write([*self._records])

    async def _write(self, keys: list[_Key]) -> None:
        if self._uncounted:
            _log.warning(
                "denied calls have no audit record", calls=self._uncounted, most_callers=MOST_CALLERS
            )
            self._uncounted = 0
        taken = [self._records.pop(key) for key in keys]
        self._by_tenant = Counter(tenant_id for tenant_id, _, _, _ in self._records)
        if not taken:
            return
        try:
            async with self._database.infra() as connection:
                await storage.insert_records(connection, [row_of(record) for record in taken])
        except BaseException:
            # They are written with the next step. What was denied in between has keys of its own.
            self._records.update(zip(keys, taken, strict=True))
            self._by_tenant = Counter(tenant_id for tenant_id, _, _, _ in self._records)
            raise
