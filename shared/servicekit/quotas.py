"""Limit what one tenant may ask of a service at once, so that the calls of the others find room.

People and workers of a tenant have limits of their own, so that a flood of questions stops no report of a run. Services
have none: what they ask, somebody was admitted for.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from servicekit.access import EXECUTOR, SERVICE
from servicekit.errors import ResourceExhaustedError
from servicekit.refusals import Refusals

_BURST_SECONDS = 2.0  # a tenant that was quiet may make the calls of this many seconds at once
_RETRY_SECONDS = 1.0  # after which a caller without a free place may ask again
_MOST_CALLERS = 10_000  # remembered at once; those that ask for nothing are forgotten first
_WAIT_STEP = (
    0.05  # seconds; a wait is told in whole steps, so that the answer need not be made anew for each call
)


class OverQuotaError(ResourceExhaustedError):
    """A call is one too many; it is counted and gets no line in the log."""


@dataclass(frozen=True)
class Limits:
    """The limits of one tenant in one process; 0 is none."""

    calls_per_second: float = 0
    calls: int = 0
    streams: int = 0


@dataclass
class _Use:
    """The calls of one tenant's people, or of its workers."""

    allowance: float
    moment: float
    calls: int = 0
    streams: int = 0


class Quotas:
    """The calls under way of each tenant, and how many more it may make."""

    def __init__(
        self, limits: Limits, now: Callable[[], float] = time.monotonic, refusals: Refusals | None = None
    ) -> None:
        self._limits = limits
        self._now = now
        self._uses: dict[tuple[str, bool], _Use] = {}
        self._refusals = refusals or Refusals()

    @contextmanager
    def take(self, tenant_id: str, roles: Collection[str], *, is_stream: bool) -> Iterator[None]:
        """Count a call as long as it lasts.

        Raises:
            ResourceExhaustedError: RATE_LIMITED, TOO_MANY_CALLS or TOO_MANY_STREAMS, with the time to wait.
        """
        if SERVICE in roles:
            yield
            return
        use = self._use(tenant_id, EXECUTOR in roles)
        self._check(use, tenant_id, is_stream=is_stream)
        if is_stream:
            use.streams += 1
        else:
            use.calls += 1
        try:
            yield
        finally:
            if is_stream:
                use.streams -= 1
            else:
                use.calls -= 1

    def _check(self, use: _Use, tenant_id: str, *, is_stream: bool) -> None:
        limits = self._limits
        if is_stream and limits.streams and use.streams >= limits.streams:
            text = f"the tenant has {limits.streams} streams open, and may have no more; close one, or retry later"
            raise self._refusal(tenant_id, "TOO_MANY_STREAMS", text, limits.streams, _RETRY_SECONDS)
        if not is_stream and limits.calls and use.calls >= limits.calls:
            text = f"{limits.calls} calls of the tenant are under way, and there may be no more; retry later"
            raise self._refusal(tenant_id, "TOO_MANY_CALLS", text, limits.calls, _RETRY_SECONDS)
        if limits.calls_per_second:
            self._fill(use)
            if use.allowance < 1:
                wait = (1 - use.allowance) / limits.calls_per_second
                text = f"the tenant makes more than {limits.calls_per_second:g} calls per second; retry later"
                raise self._refusal(tenant_id, "RATE_LIMITED", text, limits.calls_per_second, wait)
            use.allowance -= 1

    def _refusal(self, tenant_id: str, reason: str, text: str, limit: float, wait: float) -> OverQuotaError:
        self._refusals.count(tenant_id, reason)
        steps = max(1, math.ceil(wait / _WAIT_STEP))
        return OverQuotaError(
            reason, text, metadata={"limit": f"{limit:g}"}, retry_seconds=steps * _WAIT_STEP
        )

    def _use(self, tenant_id: str, is_executor: bool) -> _Use:
        key = (tenant_id, is_executor)
        if key not in self._uses:
            if len(self._uses) >= _MOST_CALLERS:
                self._forget_idle()
            self._uses[key] = _Use(self._most(), self._now())
        return self._uses[key]

    def _forget_idle(self) -> None:
        for key, use in list(self._uses.items()):
            self._fill(use)
            if not use.calls and not use.streams and use.allowance >= self._most():
                del self._uses[key]

    def _fill(self, use: _Use) -> None:
        moment = self._now()
        gained = (moment - use.moment) * self._limits.calls_per_second
        use.allowance, use.moment = min(self._most(), use.allowance + gained), moment

    def _most(self) -> float:
        return max(1.0, self._limits.calls_per_second * _BURST_SECONDS)
