"""The caller of a request: a token, or an address without one. The services say whom a token belongs to; the gateway only tells callers apart."""

from __future__ import annotations

import hashlib
from collections import Counter, OrderedDict
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass

import grpc

from gateway.places import Place
from servicekit.failed_tokens import FailedTokens

# Fewer than a service lets one address send, because to the services all callers have the gateway's address.
_FAILED_PER_SECOND = 2.0
_FAILED_AT_ONCE = 20.0
_MOST_REMEMBERED = 10_000
# A service can answer these before it has looked at the token, or without having looked at it at all.
_SAY_NOTHING = frozenset(
    {
        grpc.StatusCode.RESOURCE_EXHAUSTED,
        grpc.StatusCode.UNAVAILABLE,
        grpc.StatusCode.DEADLINE_EXCEEDED,
        grpc.StatusCode.CANCELLED,
        grpc.StatusCode.INTERNAL,
        grpc.StatusCode.UNKNOWN,
    }
)


@dataclass(frozen=True)
class Caller:
    """The caller of a request: what tells it apart, its address, and whether it sent a token."""

    name: str
    address: str
    has_token: bool

    @property
    def address_name(self) -> str:
        """Return what tells its address apart from callers with a token."""
        return f"address {self.address}"


@dataclass
class _Visit:
    """A request under way: its caller, its place, and whether its token counts as one that is not valid."""

    caller: Caller
    place: Place
    is_counted: bool


_current: ContextVar[_Visit] = ContextVar("gateway_visit")


def caller_of(authorization: str, address: str) -> Caller:
    """Return the caller of a request; the name of a token is a part of its hash, however the header spells the rest."""
    token = authorization.partition(" ")[2].strip()
    if not token:
        return Caller(f"address {address}", address, has_token=False)
    return Caller(f"token {hashlib.sha256(token.encode()).hexdigest()[:16]}", address, has_token=True)


class Callers:
    """The tokens that a service has lately accepted, and how many each address sent that were not."""

    def __init__(self) -> None:
        self._accepted: OrderedDict[str, None] = OrderedDict()
        self._under_way: Counter[str] = Counter()  # calls of each caller
        self._failed = FailedTokens(per_second=_FAILED_PER_SECOND, at_once=_FAILED_AT_ONCE)

    def place_of(self, caller: Caller) -> str:
        """Return who has the place of a call: until a service has accepted the token, the address that sent it."""
        return caller.name if caller.name in self._accepted else caller.address_name

    @contextmanager
    def enter(self, caller: Caller, place: Place) -> Iterator[None]:
        """Make it the caller of the running task for the block.

        A token that is not known counts as not valid from here on, once for all its calls under way; `judge` takes this back.

        Raises:
            ResourceExhaustedError: RATE_LIMITED: its token is not known, and its address has sent too many that are not valid.
        """
        is_unknown = caller.has_token and caller.name not in self._accepted
        if is_unknown:
            self._failed.check(caller.address)
        visit = _Visit(caller, place, is_counted=is_unknown and not self._under_way[caller.name])
        if visit.is_counted:
            self._failed.count(caller.address)
        token = _current.set(visit)
        self._under_way[caller.name] += 1
        try:
            yield
        finally:
            _current.reset(token)
            self._under_way[caller.name] -= 1
            if not self._under_way[caller.name]:
                del self._under_way[caller.name]

    def judge(self, code: grpc.StatusCode) -> None:
        """Remember what an answer of a service says of the caller's token."""
        if code is grpc.StatusCode.UNAUTHENTICATED:
            self._refuse()
        elif code not in _SAY_NOTHING:
            self._accept()

    def nobody_asked(self) -> None:
        """Take the caller's token off the count: no service could be asked about it."""
        self._take_back(_current.get())

    def _accept(self) -> None:
        visit = _current.get()
        if not visit.caller.has_token:
            return
        name = visit.caller.name
        self._accepted[name] = None
        self._accepted.move_to_end(name)
        if len(self._accepted) > _MOST_REMEMBERED:
            self._accepted.popitem(last=False)
        self._take_back(visit)
        visit.place.move(name)

    def _refuse(self) -> None:
        visit = _current.get()
        self._accepted.pop(visit.caller.name, None)
        if not visit.is_counted:
            visit.is_counted = True
            self._failed.count(visit.caller.address)

    def _take_back(self, visit: _Visit) -> None:
        if visit.is_counted:
            visit.is_counted = False
            self._failed.take_back(visit.caller.address)
