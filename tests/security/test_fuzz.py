"""Hostile requests by the thousand to every method: each is answered with a reason, and nothing is left of them.

`make test` sends 1,500, or as many as fit into half a minute, and `make test-faults` sends 100,000. `OPTAIC_FUZZ_SEED` begins with another
seed; a failure prints its request, made as small as still fails, with the bytes and metadata to send it again.
"""

from __future__ import annotations

import contextlib
import os
import tempfile
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import grpc
import pytest

from devstack.postgres import Postgres
from optaic.client import AsyncClient
from support.fuzzing.campaign import Campaign
from support.fuzzing.day import Day
from support.fuzzing.processes import Services, running_services
from support.identities import token_of
from support.polling import eventually

pytestmark = pytest.mark.faults
_IS_FULL = os.environ.get("OPTAIC_FAULTS") == "full"
_COUNT, _SECONDS = (100_000, float("inf")) if _IS_FULL else (1_500, 25.0)
_WARM = 30_000  # requests after which a service has filled its caches
_LOOK = 10_000  # requests between two measurements of the memory
_AT_ONCE = 2_500  # between two ordinary days, whose requests are new
_MOST_GROWTH = 1.05
_SEED = os.environ.get("OPTAIC_FUZZ_SEED", "2026")
_BYSTANDER = "acme"


async def test_no_hostile_request_is_answered_as_a_fault_or_leaves_anything(
    postgres_server: Postgres, nats_url: str
) -> None:
    del postgres_server
    async with (
        _folder() as folder,  # not pytest's own, which other sessions tidy up
        running_services(nats_url, folder) as services,
        contextlib.aclosing(Day(services)) as day,
    ):
        await day.live(_BYSTANDER)
        await day.live()
        assert day.methods_without_sample() == []
        await day.rest()
        tasks = {name: facts.tasks for name, facts in (await services.facts()).items()}
        theirs = await day.snapshot(_BYSTANDER)
        campaign = Campaign(day, _SEED)
        growth = await _attack(day, campaign)
        await day.rest()
        failures = [str(await campaign.smallest(each)) for each in campaign.failures.values()]
        assert not failures, "\n\n".join([f"seed {_SEED}", *failures])
        assert services.faults() == []
        assert all(process.is_alive for process in services.processes.values())
        assert await day.snapshot(_BYSTANDER) == theirs
        await day.live(_BYSTANDER)
        await day.rest()
        await eventually(lambda: _is_at_rest(services, tasks), 60, "a task or a connection is left")
        for tenant in (_BYSTANDER, "default", "other"):
            await _verify(services, tenant)
        assert all(each <= _MOST_GROWTH for each in growth.values()), growth


@contextlib.asynccontextmanager
async def _folder() -> AsyncIterator[Path]:
    with tempfile.TemporaryDirectory() as folder:
        yield Path(folder)


async def _attack(day: Day, campaign: Campaign) -> dict[str, float]:
    """Send the requests; return by how much each service has grown since it was warm."""
    processes, end = day.services.processes, time.monotonic() + _SECONDS
    warm: dict[str, int] = {}
    memory: dict[str, int] = {}
    while campaign.count < _COUNT and time.monotonic() < end and not campaign.is_hopeless:
        await campaign.run(min(_AT_ONCE, _COUNT - campaign.count), end - time.monotonic())
        if campaign.count % _LOOK == 0:
            memory = {name: await process.memory() for name, process in processes.items()}
            warm = warm or (memory if campaign.count >= _WARM else {})
        if campaign.count < _COUNT and time.monotonic() < end:
            with contextlib.suppress(grpc.aio.AioRpcError):  # an attack may have taken what this day needs
                await day.live()
        print(f"{campaign.count} requests: {dict(campaign.codes)}, bytes: {memory}")  # noqa: T201 - the log of a campaign
    return {name: await processes[name].memory() / before for name, before in warm.items()}


async def _is_at_rest(services: Services, tasks: dict[str, int]) -> bool:
    facts = await services.facts()
    return all(not each.lent and each.tasks <= tasks[name] + 2 for name, each in facts.items())


async def _verify(services: Services, tenant: str) -> None:
    addresses: dict[str, Any] = {
        f"{name}_address": process.address for name, process in services.processes.items()
    }
    async with AsyncClient.connect(**addresses, token=token_of("admin", tenant)) as client:
        trails = await client.audit.verify()
    assert [(trail.service, list(trail.problems)) for trail in trails if trail.problems] == []
    assert any(trail.sealed_records for trail in trails)
