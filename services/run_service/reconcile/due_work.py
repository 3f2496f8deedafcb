"""Process the queues of due retries, of ticks and refreshes whose turn has come, and of flows that follow others."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Awaitable, Callable, Sequence
from datetime import datetime, timedelta
from typing import Generic, TypeVar

import structlog

from run_service.store import auto_refreshes, queues, refreshes, ticks
from run_service.store.refreshes import RefreshKey
from run_service.store.ticks import FlowKey
from run_service.use_cases.auto_refresh import follow_upstreams
from run_service.use_cases.dependencies import Dependencies
from run_service.use_cases.refresh_steps import carry_on
from run_service.use_cases.retries import retry_automatically
from run_service.use_cases.ticks import submit_waiting
from servicekit.database import Connection
from servicekit.errors import DomainError

_log = structlog.get_logger(__name__)
_Key = TypeVar("_Key", bound=tuple[str, ...])  # the tenant first


class DueWork(Generic[_Key]):
    """The loop that claims the due entries of one queue and processes those of each tenant one by one."""

    def __init__(
        self,
        deps: Dependencies,
        name: str,
        *,
        claim: Callable[[Connection, datetime, datetime, int], Awaitable[Sequence[_Key]]],
        do: Callable[[Dependencies, _Key], Awaitable[None]],
        batch: int,
        claim_seconds: float,
    ) -> None:
        self._deps = deps
        self._name = name
        self._claim = claim
        self._do = do
        self._batch = batch
        self._claim_time = timedelta(seconds=claim_seconds)

    async def step(self) -> bool:
        """Process one batch; return False if no more is due."""
        now = self._deps.clock.now()
        async with self._deps.database.infra() as connection:
            claimed = await self._claim(connection, now, now + self._claim_time, self._batch)
        by_tenant: dict[str, list[_Key]] = defaultdict(list)
        for key in claimed:
            by_tenant[key[0]].append(key)
        # At once, so that one tenant's slow entries delay no other's.
        outcomes = await asyncio.gather(
            *(self._do_all(keys) for keys in by_tenant.values()), return_exceptions=True
        )
        for outcome in outcomes:
            if isinstance(outcome, BaseException):
                raise outcome
        return len(claimed) == self._batch

    async def _do_all(self, keys: Sequence[_Key]) -> None:
        for key in keys:
            try:
                await self._do(self._deps, key)
            except DomainError as error:  # undecided: the claim expires, then it is tried again
                _log.warning("due work postponed", queue=self._name, key=key, error=repr(error))


def due_retries(deps: Dependencies) -> DueWork[queues.RunKey]:
    """Return the worker of the queue of retries."""
    return DueWork(
        deps,
        "retries",
        claim=queues.claim_retries,
        do=retry_automatically,
        batch=deps.settings.retry_batch,
        claim_seconds=deps.settings.retry_claim_seconds,
    )


def due_ticks(deps: Dependencies) -> DueWork[FlowKey]:
    """Return the worker of the queue of waiting ticks."""
    return DueWork(
        deps,
        "ticks",
        claim=ticks.claim_flows,
        do=submit_waiting,
        batch=deps.settings.tick_batch,
        claim_seconds=deps.settings.tick_claim_seconds,
    )


def due_refreshes(deps: Dependencies) -> DueWork[RefreshKey]:
    """Return the worker of the running refreshes that are due."""
    return DueWork(
        deps,
        "refreshes",
        claim=refreshes.claim_refreshes,
        do=carry_on,
        batch=deps.settings.refresh_batch,
        claim_seconds=deps.settings.refresh_claim_seconds,
    )


def due_auto_refreshes(deps: Dependencies) -> DueWork[FlowKey]:
    """Return the worker of the queue of flows that may follow their upstream flows."""
    return DueWork(
        deps,
        "auto_refreshes",
        claim=auto_refreshes.claim_flows,
        do=follow_upstreams,
        batch=deps.settings.auto_refresh_batch,
        claim_seconds=deps.settings.auto_refresh_claim_seconds,
    )
