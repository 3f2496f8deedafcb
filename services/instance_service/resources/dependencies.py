"""Declare what resources may use of a use case's dependencies: no database, so they cannot open a transaction."""

from __future__ import annotations

from typing import Protocol

from instance_service.events import Events
from optaic.common.v1.flow_pb2 import FlowRef
from servicekit.clock import Clock
from servicekit.ids import IdSource


class ResourceDependencies(Protocol):
    """Give access to the clock, the sources of ids and events, and the setting for strict rules."""

    @property
    def clock(self) -> Clock:
        """Return the clock."""
        ...

    @property
    def ids(self) -> IdSource:
        """Return the source of ids."""
        ...

    @property
    def moved_flows(self) -> list[FlowRef] | None:
        """Return where to list the flows that get another fingerprint; None except in rehearsals."""
        ...

    @property
    def is_lenient(self) -> bool:
        """Return whether an instance that violates rules is created anyway; true only in rehearsals."""
        ...

    def events(self, tenant_id: str) -> Events:
        """Return the factory of a tenant's events."""
        ...
