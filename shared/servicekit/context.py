"""Hold the caller's identity and the ids of the current request; it decides nothing."""

from __future__ import annotations

import os
import re
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field, replace

from servicekit.access import SERVICE

TENANT_PATTERN = re.compile(r"[a-z0-9][a-z0-9_-]{0,62}")
_TRACEPARENT_PATTERN = re.compile(r"[0-9a-f]{2}-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}")


@dataclass(frozen=True)
class Scopes:
    """The projects to which a caller is confined in one call: where it may do it, and what it may refer to (None: all)."""

    permitted: frozenset[str]
    readable: frozenset[str] | None

    @property
    def projects(self) -> frozenset[str]:
        """Return the projects that the caller has a role in."""
        return self.permitted | (self.readable or frozenset())

    def may_read(self, project_id: str) -> bool:
        """Return whether the caller may read a project; empty means that it is not known, and nobody may."""
        return bool(project_id) and (self.readable is None or project_id in self.projects)

    def reads_within(self, other: Scopes) -> bool:
        """Return whether other scopes let read everything that these do."""
        return other.readable is None or (self.readable is not None and self.projects <= other.projects)


@dataclass
class RequestContext:
    """A request: the identity from its verified token, ids for the logs, read and write tokens."""

    tenant_id: str
    actor: str
    request_id: str
    traceparent: str
    roles: frozenset[str] = frozenset()
    scopes: Scopes | None = None  # None: it may do it in the whole tenant
    projects: dict[str, str] = field(default_factory=dict)  # of what a confined caller's call has met so far
    stand_ins: Mapping[str, str] = field(
        default_factory=dict
    )  # what the caller gave, by what stands in for it
    # The scopes of the requests that a confined caller's request lists, by their place in the list.
    inner_scopes: dict[int, Scopes] = field(default_factory=dict)
    read_tokens: tuple[str, ...] = ()
    write_tokens: list[str] = field(default_factory=list)
    deadline: float | None = None  # on the monotonic clock
    has_own_deadline: bool = (
        False  # whether the caller set the deadline; otherwise it is the server's default
    )

    @property
    def is_service(self) -> bool:
        """Return whether another service of this installation asks, for the tenant that it names."""
        return SERVICE in self.roles

    @property
    def is_confined(self) -> bool:
        """Return whether there may be projects that the caller may not read."""
        return self.scopes is not None and self.scopes.readable is not None

    @property
    def readable_projects(self) -> frozenset[str] | None:
        """Return the projects of which a list may tell the caller; None: all."""
        return None if self.scopes is None else self.scopes.permitted

    def inner(self, index: int) -> RequestContext:
        """Return the context of one of the requests that the request lists."""
        return (
            self if self.scopes is None else replace(self, scopes=self.inner_scopes.get(index, self.scopes))
        )

    def remaining(self) -> float | None:
        """Return the seconds until the deadline, at least 0; None without a deadline."""
        return None if self.deadline is None else max(0.0, self.deadline - time.monotonic())


_current: ContextVar[RequestContext | None] = ContextVar("servicekit_request", default=None)


def current() -> RequestContext:
    """Return the request that is being served; raise LookupError if there is none, which is a programming error."""
    context = _current.get()
    if context is None:
        raise LookupError("no request is being served here")
    return context


def current_or_none() -> RequestContext | None:
    """Return the request that is being served, or None outside of one."""
    return _current.get()


def enter(context: RequestContext) -> None:
    """Make `context` the current request for the rest of the running task."""
    _current.set(context)


@contextmanager
def bind(context: RequestContext) -> Iterator[RequestContext]:
    """Make `context` the current request for the block."""
    token = _current.set(context)
    try:
        yield context
    finally:
        _current.reset(token)


def new_traceparent() -> str:
    """Return a fresh W3C trace context."""
    digits = os.urandom(24).hex()  # at once: the system is asked for each
    return f"00-{digits[:32]}-{digits[32:]}-01"


def is_traceparent(text: str) -> bool:
    """Return whether a text is a W3C trace context."""
    return _TRACEPARENT_PATTERN.fullmatch(text) is not None


def is_tenant_id(text: str) -> bool:
    """Return whether a text can be a tenant id: it is safe as a token of a subject and inside SQL."""
    return TENANT_PATTERN.fullmatch(text) is not None
