"""Read the audit trails of all services, and check that they are as they were sealed. Generated from optaic.client.audit by `make client`; do not edit."""

from __future__ import annotations

from datetime import datetime

from optaic.audit.v1.audit_pb2 import AuditRecord
from optaic.client import audit as asynchronous
from optaic.client.audit import TrailVerification
from optaic.client.synchronous.loop import Plain


class Audit(Plain[asynchronous.Audit]):
    """The audit trails of the caller's tenant."""

    def records(
        self,
        *,
        actor: str = "",
        method: str = "",
        resource: str = "",
        begin_time: datetime | None = None,
        end_time: datetime | None = None,
    ) -> list[AuditRecord]:
        """Return the records of all services in the order of their time; empty filters mean all."""
        return self._loop.run(
            self._target.records(
                actor=actor, method=method, resource=resource, begin_time=begin_time, end_time=end_time
            )
        )

    def verify(self) -> list[TrailVerification]:
        """Compute every seal of the tenant again from the records, and return what differs, for each service."""
        return self._loop.run(self._target.verify())

    def verify_service(self, service: str) -> TrailVerification:
        """Compute every seal of one service again; the service is `instance`, `run`, `lineage` or `status`."""
        return self._loop.run(self._target.verify_service(service))
