"""What resources see of the use cases' dependencies: no database, so that nothing here can open a transaction."""

from __future__ import annotations

from typing import Protocol

from instance_service.events import Events
from servicekit.clock import Clock
from servicekit.ids import IdSource


class ResourceDependencies(Protocol):
    """Time, ids and events, and how a resource is judged."""

    @property
    def clock(self) -> Clock:
        """Return the clock."""
        ...

    @property
    def ids(self) -> IdSource:
        """Return the source of ids."""
        ...

    @property
    def is_lenient(self) -> bool:
        """Return whether an instance that breaks rules is made all the same."""
        ...

    def events(self, tenant_id: str) -> Events:
        """Return the maker of a tenant's events."""
        ...
