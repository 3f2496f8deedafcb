"""The caller of a request: a token, or an address without one. The services say whom a token belongs to; the gateway only tells callers apart."""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from contextvars import ContextVar
from dataclasses import dataclass

from servicekit.failed_tokens import FailedTokens

# Fewer than a service lets one address send, because to the services all callers have the gateway's address.
_FAILED_PER_SECOND = 2.0
_FAILED_AT_ONCE = 20.0
_MOST_REMEMBERED = 10_000


@dataclass(frozen=True)
class Caller:
    """The caller of a request: what tells it apart, its address, and whether it sent a token."""

    name: str
    address: str
    has_token: bool


_current: ContextVar[Caller] = ContextVar("gateway_caller")


def caller_of(authorization: str, address: str) -> Caller:
    """Return the caller of a request; the name of a token is a part of its hash."""
    if not authorization:
        return Caller(f"address {address}", address, has_token=False)
    return Caller(f"token {hashlib.sha256(authorization.encode()).hexdigest()[:16]}", address, has_token=True)


class Callers:
    """The tokens that a service has lately accepted, and how many each address sent that were not."""

    def __init__(self) -> None:
        self._accepted: OrderedDict[str, None] = OrderedDict()
        self._failed = FailedTokens(per_second=_FAILED_PER_SECOND, at_once=_FAILED_AT_ONCE)

    def enter(self, caller: Caller) -> None:
        """Make it the caller of the running task.

        Raises:
            ResourceExhaustedError: RATE_LIMITED: its token is not known, and its address has sent too many that are not valid.
        """
        if caller.has_token and caller.name not in self._accepted:
            self._failed.check(caller.address)
        _current.set(caller)

    def judge(self, *, is_known: bool) -> None:
        """Remember what a service has said of the caller's token."""
        if is_known:
            self.accept()
        else:
            self.refuse()

    def accept(self) -> None:
        """Remember that a service has accepted the caller's token."""
        name = _current.get().name
        self._accepted[name] = None
        self._accepted.move_to_end(name)
        if len(self._accepted) > _MOST_REMEMBERED:
            self._accepted.popitem(last=False)

    def refuse(self) -> None:
        """Count that a service has refused the caller's token."""
        caller = _current.get()
        self._accepted.pop(caller.name, None)
        self._failed.count(caller.address)
