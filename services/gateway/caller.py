"""The caller of a request: a token, or an address without one. The services say whom a token belongs to; the gateway only tells callers apart."""

from __future__ import annotations

import hashlib
from collections import OrderedDict, defaultdict
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


@dataclass(eq=False)
class _Visit:
    """A request under way: its caller, its place, and what was and is known of its token."""

    caller: Caller
    place: Place
    was_accepted: bool  # when it came in
    is_counted: bool  # as one that is not valid


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
        self._under_way: defaultdict[str, set[_Visit]] = defaultdict(set)  # of each caller
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
        visit = _Visit(
            caller,
            place,
            was_accepted=caller.name in self._accepted,
            is_counted=is_unknown and not self._under_way[caller.name],
        )
        if visit.is_counted:
            self._failed.count(caller.address)
        token = _current.set(visit)
        self._under_way[caller.name].add(visit)
        try:
            yield
        finally:
            _current.reset(token)
            self._under_way[caller.name].discard(visit)
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
        is_new = name not in self._accepted
        self._accepted[name] = None
        self._accepted.move_to_end(name)
        if len(self._accepted) > _MOST_REMEMBERED:
            self._accepted.popitem(last=False)
        # All calls with it: a stream may have no answer of its own for long.
        for each in self._under_way[name] if is_new else (visit,):
            self._take_back(each)
            each.place.move(name)

    def _refuse(self) -> None:
        visit = _current.get()
        is_known_already = visit.was_accepted and visit.caller.name not in self._accepted
        self._accepted.pop(visit.caller.name, None)
        # The calls that came with a token while it was valid end together when it is so no more; that is one token, not many.
        if not (visit.is_counted or is_known_already):
            visit.is_counted = True
            self._failed.count(visit.caller.address)

    def _take_back(self, visit: _Visit) -> None:
        if visit.is_counted:
            visit.is_counted = False
            self._failed.take_back(visit.caller.address)
