"""kill -9 of the worker, of a run's process and of its guardian in the middle of each kind of run.

Nothing of such a run is published, here or in MLflow or Evidently; the flow's next run publishes what the one before had.
"""

import os
import signal

import pytest

from optaic.run.v1 import run_pb2
from support import campaigns
from support.polling import PATIENCE, eventually
from support.processes import list_run_processes
from support.run_moments import BEFORE_COMPLETION, READING, WRITING
from support.seven_kinds import CHOSEN, KINDS, RETRIED, Published, SevenKinds

pytestmark = pytest.mark.faults
_WITH_PROCESSES = (
    [
        (kind, moment, victim)
        for kind in KINDS
        for moment in (READING, WRITING)
        for victim in ("child", "guardian")
    ]
    if campaigns.IS_FULL
    else [("refresh", WRITING, "child"), ("training", READING, "guardian")]
)


@pytest.mark.parametrize("moment", [READING, WRITING] if campaigns.IS_FULL else [WRITING])
async def test_a_worker_killed_in_the_middle_of_runs_leaves_nothing_of_them(
    kinds: SevenKinds, moment: str
) -> None:
    await kinds.prepare(CHOSEN)
    before = {kind: await kinds.wait_until_ready(kind) for kind in CHOSEN}
    kinds.gate.hold(moment, len(CHOSEN))
    handles = {kind: await kinds.submit(kind) for kind in CHOSEN}
    await kinds.gate.wait_until_full(PATIENCE)
    await kinds.mortal.kill()
    kinds.mortal.restart()
    runs = {kind: await handle.wait(timeout=PATIENCE) for kind, handle in handles.items()}
    assert {kind: run.error.type for kind, run in runs.items()} == dict.fromkeys(CHOSEN, "WORKER_LOST")
    for kind, run in runs.items():
        await _goes_on(kinds, kind, run, before[kind])


@pytest.mark.parametrize("kind", KINDS if campaigns.IS_FULL else [])
async def test_a_worker_killed_before_it_reports_leaves_nothing_of_the_run(
    kinds: SevenKinds, kind: str
) -> None:
    await kinds.prepare([kind])
    before = await kinds.wait_until_ready(kind)
    kinds.gate.hold(BEFORE_COMPLETION)
    handle = await kinds.submit(kind)
    await kinds.gate.wait_until_full(PATIENCE)
    await kinds.mortal.kill()
    kinds.mortal.restart()
    run = await handle.wait(timeout=PATIENCE)
    assert run.error.type == "WORKER_LOST"
    await _goes_on(kinds, kind, run, before)


@pytest.mark.parametrize(("kind", "moment", "victim"), _WITH_PROCESSES)
async def test_a_run_whose_process_or_guardian_is_killed_fails_at_once(
    kinds: SevenKinds, kind: str, moment: str, victim: str
) -> None:
    await kinds.prepare([kind])
    before = await kinds.wait_until_ready(kind)
    kinds.gate.hold(moment)
    handle = await kinds.submit(kind)
    await kinds.gate.wait_until_full(PATIENCE)
    guardian, *_, child = list_run_processes(kinds.mortal.worker.pid)
    os.kill(guardian if victim == "guardian" else child, signal.SIGKILL)
    run = await handle.wait(timeout=PATIENCE)
    assert run.error.type == "PROCESS_KILLED"
    await eventually(lambda: not list_run_processes(kinds.mortal.worker.pid), PATIENCE)
    await _goes_on(kinds, kind, run, before)


async def _goes_on(kinds: SevenKinds, kind: str, run: run_pb2.Run, before: Published) -> None:
    """Check what a lost run has left, and that the flow runs again: by itself where its instance says so."""
    if kind in RETRIED:

        async def is_retried() -> run_pb2.Run | None:
            newest = (await kinds.client.runs.list(kinds.instance(kind), flow_kind=kind))[0]
            return newest if newest.attempt == 2 and newest.HasField("end_time") else None

        retried = await eventually(is_retried, PATIENCE, "the run is not retried")
        assert retried is not None
        assert (retried.status, retried.trigger) == (run_pb2.RUN_STATUS_COMPLETED, run_pb2.RUN_TRIGGER_RETRY)
        assert retried.output_version.digest == before.digest
    await kinds.assert_nothing_published(run, before)
    await kinds.assert_next_run_is_right(kind, before)
