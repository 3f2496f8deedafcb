"""kill -9 of the worker, of a run's process and of run-service at each boundary of a run's life, under load.

No run stays active, and each ends in Prefect as it did here: those that were submitted, and those of the schedule.
"""

from __future__ import annotations

import contextlib
import functools
import itertools
import os
import random
import signal
from collections import Counter
from pathlib import Path

import pytest

from devstack.postgres import Postgres
from optaic.run.v1 import run_pb2
from support.killed_runs import KillWorld, kill_world
from support.postgres import service_database
from support.prefect_api import FINAL, prefect_api
from support.run_moments import BEFORE_CLAIM, BEFORE_FORK, MOMENTS

pytestmark = pytest.mark.faults
_IS_FULL = os.environ.get("OPTAIC_FAULTS") == "full"
_KILLS = 200 if _IS_FULL else 10
_FLOWS = 4
_SEED = 11
_ANY = "at any moment"
# Where there is no process of the run yet, none can be killed.
_KINDS = [
    (moment, victim)
    for moment, victim in itertools.product(MOMENTS, ("worker", "child", "service"))
    if victim != "child" or moment not in {BEFORE_CLAIM, BEFORE_FORK}
] + [(_ANY, "worker"), (_ANY, "service")]
_SAME_END = {
    run_pb2.RUN_STATUS_COMPLETED: {"COMPLETED"},
    run_pb2.RUN_STATUS_FAILED: {"FAILED", "CRASHED"},
    run_pb2.RUN_STATUS_CANCELLED: {"CANCELLED"},
}


def _plan(seed: random.Random) -> list[tuple[str, str]]:
    """Every kind as often as every other; the slice has each moment at least once."""
    if _IS_FULL:
        plan = list(itertools.islice(itertools.cycle(_KINDS), _KILLS))
        seed.shuffle(plan)
        return plan
    victims = ["worker", "worker", "child", "worker", "child", "service", "worker"]
    rest = [(_ANY, "worker"), (BEFORE_FORK, "service"), (_ANY, "worker")]
    return [*zip(MOMENTS, victims, strict=True), *rest]


def _strike(world: KillWorld, victim: str, pid: int) -> None:
    if victim == "child":
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
        return
    program = world.worker if victim == "worker" else world.service
    program.kill()
    program.start()


async def test_no_run_outlives_a_kill(
    postgres_server: Postgres, nats_url: str, prefect_url: str, tmp_path: Path
) -> None:
    del postgres_server
    seed = random.Random(_SEED)
    ends: Counter[str] = Counter()
    async with (
        service_database("run", "run_service") as urls,
        prefect_api(prefect_url) as prefect,
        kill_world(urls, nats_url, prefect_url, prefect, tmp_path) as world,
    ):
        for _ in range(_FLOWS + 1):
            await world.add_flow(seed.uniform(0.1, 0.6))
        *submitted, scheduled = world.flows
        plan = _plan(seed)
        assert len(plan) == _KILLS
        for number, (moment, victim) in enumerate(plan):
            print(f"kill {number}: {victim} {moment}")  # noqa: T201 - shown when it fails
            times, strike = seed.randint(1, _FLOWS), functools.partial(_strike, world, victim)
            if moment == _ANY:
                world.gate.strike_after(seed.uniform(0.1, 4), strike)
            else:
                world.gate.arm(moment, times, strike)
            flow_run_id = await world.tick(scheduled)
            run_ids = [await world.submit(instance) for instance in submitted]
            await world.wait_for_strike()
            await world.wait_for_ends()
            label = f"kill {number}: {victim} {moment}, time {times}, seed {_SEED}"
            told = await world.list_runs(scheduled.instance_id)
            assert len(told) == number + 1, label  # each tick has one run, or says why it has none
            for run in [told[0], *[await world.get_run(run_id) for run_id in run_ids]]:
                assert await world.end_in_prefect(run) in _SAME_END[run.status], f"{label}: {run}"
                ends[run_pb2.RunStatus.Name(run.status)] += 1
            assert (await prefect.state(flow_run_id))["type"] in FINAL, label
    # Most runs are none of the kill's business.
    assert ends["RUN_STATUS_COMPLETED"] > _KILLS * _FLOWS / 2, ends
