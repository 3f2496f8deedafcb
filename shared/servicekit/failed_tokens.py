"""Bound how many tokens that are not valid one address may have verified, because each costs a signature check."""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Callable

from servicekit.errors import ResourceExhaustedError

_PER_SECOND = 20.0
_AT_ONCE = 100.0
_MOST_ADDRESSES = 10_000  # remembered; the one that failed the longest ago is forgotten first
_RETRY_SECONDS = 1.0


class FailedTokens:
    """The tokens of each address that were not valid. It says nothing about tokens that are known already."""

    def __init__(
        self,
        now: Callable[[], float] = time.monotonic,
        *,
        per_second: float = _PER_SECOND,
        at_once: float = _AT_ONCE,
    ) -> None:
        self._now = now
        self._per_second = per_second
        self._at_once = at_once
        self._failures: OrderedDict[str, tuple[float, float]] = OrderedDict()  # how many, and at which moment

    def check(self, peer: str) -> None:
        """Refuse to verify another token of an address that sends too many that are not valid.

        Raises:
            ResourceExhaustedError: RATE_LIMITED.
        """
        if self._count_of(address_of(peer)) >= self._at_once:
            raise ResourceExhaustedError(
                "RATE_LIMITED",
                f"more than {self._per_second:g} tokens per second that are not valid come from your address; retry later with a "
                "valid one",
                metadata={"limit": f"{self._per_second:g}"},
                retry_seconds=_RETRY_SECONDS,
            )

    def count(self, peer: str) -> None:
        """Count a token that was not valid."""
        address = address_of(peer)
        self._failures[address] = (self._count_of(address) + 1, self._now())
        self._failures.move_to_end(address)
        while len(self._failures) > _MOST_ADDRESSES:
            self._failures.popitem(last=False)

    def take_back(self, peer: str) -> None:
        """Count one less: a token that was counted has turned out to be valid."""
        address = address_of(peer)
        if address in self._failures:
            self._failures[address] = (max(0.0, self._count_of(address) - 1), self._now())

    def _count_of(self, address: str) -> float:
        count, moment = self._failures.get(address, (0.0, 0.0))
        return max(0.0, count - (self._now() - moment) * self._per_second)


def address_of(peer: str) -> str:
    """Return the address of a peer such as `ipv4:10.0.0.1:5678`, without its port."""
    return peer.rpartition(":")[0] if peer.startswith(("ipv4:", "ipv6:")) else peer
