"""History checker of the watch of a run: each connection tells what is, then every change, and the end comes to everybody."""

from __future__ import annotations

import asyncio
from random import Random

import grpc
import pytest

from devstack.postgres import Postgres
from optaic.run.v1 import run_pb2, run_service_pb2
from optaic.run.v1.run_service_pb2_grpc import RunServiceStub
from support import campaigns
from support.proxy import Proxy
from support.run_service import RunningRunService, run_service

pytestmark = pytest.mark.faults
_BREAKS = campaigns.count("OPTAIC_WATCH_BREAKS", 50, 1_000)
_WATCHERS, _PROGRESS = 3, 40
_State = tuple[int, float]  # status and progress, which a heartbeat changes each time
_PASSING = {grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.CANCELLED}


def _state(run: run_pb2.Run) -> _State:
    return run.status, run.progress_pct


def _is_ended(state: _State) -> bool:
    return state[0] == run_pb2.RUN_STATUS_COMPLETED


async def _connection(target: str, run_id: str, patience: int) -> list[_State]:
    """Return what one connection tells until it breaks; a repetition of what was told last is none."""
    told: list[_State] = []
    async with grpc.aio.insecure_channel(target) as channel:
        call = RunServiceStub(channel).WatchRun(run_service_pb2.WatchRunRequest(run_id=run_id))
        try:
            async for run in call:
                if not told or told[-1] != _state(run):
                    told.append(_state(run))
                    patience -= 1
                if patience <= 0:
                    break
        except grpc.aio.AioRpcError as error:
            if error.code() not in _PASSING:
                raise
        finally:
            call.cancel()
    return told


async def _watch(service: RunningRunService, proxy: Proxy, run_id: str, random: Random) -> list[list[_State]]:
    """Return what each connection of a watcher tells, until one of them tells the end."""
    found: list[list[_State]] = []
    while not (found and found[-1] and _is_ended(found[-1][-1])):
        is_cut = random.random() < 0.5
        target = proxy.url.rpartition("/")[2] if is_cut else service.address
        found.append(await _connection(target, run_id, random.randint(1, 10)))
        if is_cut:
            proxy.cut()
            proxy.heal()
    return found


async def _execute(service: RunningRunService, run_id: str) -> None:
    started = await service.start(run_id)
    for progress in range(1, _PROGRESS + 1):
        await service.heartbeat(run_id, started.fencing_token, progress_pct=progress * 100 / (_PROGRESS + 1))
    await service.complete(run_id, started.fencing_token)


async def test_each_connection_tells_every_change_once_and_the_end_comes(
    postgres_server: Postgres, nats_url: str
) -> None:
    del postgres_server
    random = campaigns.begin()
    breaks = 0
    async with run_service(nats_url) as service, Proxy(f"tcp://{service.address}") as proxy:
        while breaks < _BREAKS:
            run = await service.submit(service.instances.add())
            unbroken = asyncio.create_task(_connection(service.address, run.run_id, 10 * _PROGRESS))
            watching = [
                asyncio.create_task(_watch(service, proxy, run.run_id, random)) for _ in range(_WATCHERS)
            ]
            await _execute(service, run.run_id)
            log = await unbroken
            assert _is_ended(log[-1])
            assert len(set(log)) == len(log)
            for histories in await asyncio.gather(*watching):
                breaks += len(histories) - 1  # the last one told the end
                reached = 0
                for told in histories:
                    begin = log.index(told[0]) if told else reached
                    assert begin >= reached - 1, "a later connection tells an older state"
                    assert told == log[begin : begin + len(told)]
                    reached = begin + len(told)
                assert reached == len(log)
