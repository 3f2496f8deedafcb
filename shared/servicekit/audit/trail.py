"""Connect the audit trail to the server and to the composition root of a service."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Coroutine, Mapping
from contextlib import asynccontextmanager
from typing import Any

from optaic.audit.v1 import audit_service_pb2
from optaic.audit.v1.audit_service_pb2_grpc import add_AuditServiceServicer_to_server
from servicekit.audit import storage
from servicekit.audit.denials import Denials
from servicekit.audit.grpc_api import AuditServicer
from servicekit.audit.records import begin_change
from servicekit.audit.sealing import Sealer
from servicekit.changes import current_change
from servicekit.clock import Clock
from servicekit.context import RequestContext
from servicekit.database import Database
from servicekit.loop import Loop
from servicekit.signing import Signer

_SERVICE = audit_service_pb2.DESCRIPTOR.services_by_name["AuditService"].full_name
_SEAL_SECONDS = 1.0
_DENIALS_SECONDS = 10.0


class AuditTrail:
    """The records of audited calls, the counts of denied calls, and the seals over both."""

    def __init__(self, database: Database, signer: Signer, clock: Clock) -> None:
        self._database = database
        self._signer = signer
        self._clock = clock
        self.denials = Denials(database, clock)

    @asynccontextmanager
    async def record(self, request: RequestContext, method: str, peer: str) -> AsyncIterator[None]:
        """Surround an audited call: it leaves one record, in the transaction of its change or, without one, at its end.

        A call that is refused has changed nothing and leaves none.
        """
        change = begin_change(request, method, peer, self._clock.now())
        token = current_change.set(change)
        try:
            yield
        finally:
            current_change.reset(token)
        if not change.is_written:
            change.resource = ""  # what a transaction noted that was rolled back
            async with self._database.transaction(request.tenant_id) as connection:
                await storage.insert_records(connection, [change.make_row(change)])

    @property
    def registration(self) -> tuple[Callable[[Any, Any], None], object, str]:
        """The servicer of AuditService, as `Server` registers it."""
        return add_AuditServiceServicer_to_server, AuditServicer(self._database, self._signer), _SERVICE

    @property
    def background(self) -> Mapping[str, Callable[[], Coroutine[Any, Any, None]]]:
        """The loops that seal records and write denied calls, by name."""
        loops = (
            Loop("audit seals", _SEAL_SECONDS, Sealer(self._database, self._clock).step),
            Loop("audit denials", _DENIALS_SECONDS, self.denials.step),
        )
        return {loop.name: loop.run for loop in loops}
