"""kill -9 of the worker, of a run's process and of run-service at each boundary of a run's life, under load.

No run stays active, and each ends in Prefect as it did here: those that were submitted, and those of the schedule.
The last line says how many kills and runs there were, and what became of them. `OPTAIC_KILLS` gives another number of
kills than 8, or 200 in the campaign at full length.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import itertools
import os
import random
import signal
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from devstack.postgres import Postgres
from optaic.run.v1 import run_pb2
from servicekit.enums import enum_word
from support.killed_runs import ACTIVE, KillWorld, kill_world
from support.postgres import service_database
from support.prefect_api import FINAL, prefect_api
from support.processes import list_run_processes
from support.run_moments import MOMENTS

pytestmark = pytest.mark.faults
_IS_FULL = os.environ.get("OPTAIC_FAULTS") == "full"
_KILLS = int(os.environ.get("OPTAIC_KILLS", "200" if _IS_FULL else "8"))
# Of all: 15 seconds for each kill and 30 to begin with, on a machine that is not busy.
_LIMIT_SECONDS = 600 + 60 * _KILLS
_SLICE = 8
_FLOWS = 4
_SEED = 11
_ANY = "at any moment"
# The worker reaches every moment itself; the process of a run only computes.
_KINDS = [
    *itertools.product(MOMENTS, ("worker", "service")),
    *((_ANY, victim) for victim in ("worker", "child", "service")),
]
_SAME_END = {
    run_pb2.RUN_STATUS_COMPLETED: {"COMPLETED"},
    run_pb2.RUN_STATUS_FAILED: {"FAILED", "CRASHED"},
    run_pb2.RUN_STATUS_CANCELLED: {"CANCELLED"},
}


@dataclass
class Tally:
    """What a campaign has seen."""

    kills: int = 0
    runs: int = 0
    active: int = 0  # left so, with their flow runs going on or not
    differing: list[str] = field(default_factory=list)
    ends: Counter[str] = field(default_factory=Counter)

    def __str__(self) -> str:
        ends = ", ".join(f"{number} {name}" for name, number in sorted(self.ends.items()))
        return (
            f"{self.kills} of {_KILLS} kills, {self.runs} runs ({ends}), left active: {self.active}, "
            f"ends that differ from Prefect: {len(self.differing)}"
        )


def _plan(seed: random.Random) -> list[tuple[str, str]]:
    """Every kind as often as every other; the slice has each moment and each victim at least once."""
    if _KILLS != _SLICE:
        plan = list(itertools.islice(itertools.cycle(_KINDS), _KILLS))
        seed.shuffle(plan)
        return plan
    victims = ["worker", "worker", "service", "worker", "worker", "service", "worker"]
    return [*zip(MOMENTS, victims, strict=True), (_ANY, "child")]


def _strike(world: KillWorld, victim: str, _pid: int) -> bool:
    """Kill the victim; return whether there was one."""
    if victim == "child":
        processes = list_run_processes(world.worker.pid)
        if processes:
            with contextlib.suppress(ProcessLookupError):
                os.kill(processes[-1], signal.SIGKILL)
        return bool(processes)
    program = world.worker if victim == "worker" else world.service
    program.kill()
    program.start()
    return True


async def test_no_run_outlives_a_kill(
    postgres_server: Postgres,
    nats_url: str,
    prefect_url: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    del postgres_server
    seed, tally = random.Random(_SEED), Tally()
    try:
        async with (
            asyncio.timeout(_LIMIT_SECONDS),
            service_database("run", "run_service") as urls,
            prefect_api(prefect_url) as prefect,
            kill_world(urls, nats_url, prefect_url, prefect, tmp_path) as world,
        ):
            await _campaign(world, seed, tally)
    finally:
        with capsys.disabled():
            print(f"\n{tally}")  # noqa: T201 - what a campaign is for
    assert tally.differing == []
    assert tally.kills == _KILLS
    # Most runs are none of the kill's business.
    assert tally.ends["COMPLETED"] > _KILLS * _FLOWS / 2


async def _campaign(world: KillWorld, seed: random.Random, tally: Tally) -> None:
    for _ in range(_FLOWS + 1):
        await world.add_flow(seed.uniform(0.1, 0.6))
    *submitted, scheduled = world.flows
    plan = _plan(seed)
    assert len(plan) == _KILLS
    for number, (moment, victim) in enumerate(plan):
        times, strike = seed.randint(1, _FLOWS), functools.partial(_strike, world, victim)
        label = f"kill {number}: {victim} {moment}, time {times}, seed {_SEED}"
        print(label)  # noqa: T201 - shown when it fails
        if moment == _ANY:
            # The runs last a second or two, and only as long is there a child.
            world.gate.strike_after(seed.uniform(0.1, 0.5 if victim == "child" else 4), strike)
        else:
            world.gate.arm(moment, times, strike)
        flow_run_id = await world.tick(scheduled)
        run_ids = [await world.submit(instance) for instance in submitted]
        await world.wait_for_strike()
        tally.kills += 1
        try:
            await world.wait_for_ends()
            # A tick whose worker died with it waits, and no flow run goes on, until another one takes its place.
            await world.wait_for_runs(scheduled, number + 1)
            await world.wait_for_ends()
        except AssertionError:
            tally.active += len(await world.list_runs(statuses=ACTIVE))
            raise
        told = await world.list_runs(scheduled.instance_id)
        assert len(told) == number + 1, label  # each tick has one run, or says why it has none
        for run in [told[0], *[await world.get_run(run_id) for run_id in run_ids]]:
            end = await world.end_in_prefect(run, _SAME_END[run.status])
            if end not in _SAME_END[run.status]:
                tally.differing.append(f"{label}: {end}, and {run}")
            tally.runs += 1
            tally.ends[enum_word(run_pb2.RunStatus, run.status).upper()] += 1
        assert (await world.prefect.state(flow_run_id))["type"] in FINAL, label
