"""kill -9 of the worker at each step of a delivery to MLflow and Evidently.

What a run owes that completes is delivered exactly once, also by the next worker; of a run that does not complete nothing stays.
"""

import pytest

from optaic.run.v1 import run_pb2
from support import campaigns
from support.mortal_worker import move_link
from support.polling import PATIENCE
from support.run_moments import (
    AFTER_COMPLETION,
    FIGURES_LOGGED,
    FILES_UPLOADED,
    OWED,
    RUN_CREATED,
    RUN_ENDED,
    SETTLING,
    SNAPSHOT_DRAFTED,
    SNAPSHOT_WRITTEN,
    VERSION_REGISTERED,
)
from support.seven_kinds import SevenKinds

pytestmark = pytest.mark.faults
_STEPS = [
    *(
        ("training", moment)
        for moment in (RUN_CREATED, FIGURES_LOGGED, FILES_UPLOADED, VERSION_REGISTERED, RUN_ENDED)
    ),
    *(("monitoring", moment) for moment in (SNAPSHOT_DRAFTED, SNAPSHOT_WRITTEN)),
]
_ENDS = [(kind, moment) for kind in ("training", "monitoring") for moment in (AFTER_COMPLETION, SETTLING)]
_OWINGS = [(kind, OWED) for kind in ("training", "monitoring")]
_SYSTEMS = {"training": "mlflow", "monitoring": "evidently"}


@pytest.mark.parametrize(("kind", "moment"), [*_OWINGS, *_STEPS] if campaigns.IS_FULL else [])
async def test_what_a_run_was_delivered_that_its_worker_did_not_complete_is_withdrawn(
    kinds: SevenKinds, kind: str, moment: str
) -> None:
    await kinds.prepare([kind])
    before = await kinds.wait_until_ready(kind)
    run = await _kill_during(kinds, kind, moment)
    assert run.error.type == "WORKER_LOST"
    await kinds.assert_nothing_published(run, before)
    await kinds.assert_next_run_is_right(kind, before)


@pytest.mark.parametrize(("kind", "moment"), _ENDS if campaigns.IS_FULL else [])
async def test_what_a_completed_run_was_delivered_stays_when_its_worker_dies(
    kinds: SevenKinds, kind: str, moment: str
) -> None:
    await kinds.prepare([kind])
    run = await _kill_during(kinds, kind, moment)
    assert run.status == run_pb2.RUN_STATUS_COMPLETED, run
    await kinds.assert_delivered_once(run)


@pytest.mark.parametrize(
    ("kind", "moment"),
    [*_STEPS, ("training", SETTLING), ("monitoring", SETTLING)]
    if campaigns.IS_FULL
    else [("training", VERSION_REGISTERED)],
)
async def test_what_a_completed_run_owes_is_delivered_once_over_a_death(
    kinds: SevenKinds, kind: str, moment: str
) -> None:
    await kinds.prepare([kind])
    kinds.proxy.cut()
    move_link(kinds.mortal, None)
    try:
        run = await (await kinds.submit(kind)).wait(timeout=PATIENCE)
        assert run.status == run_pb2.RUN_STATUS_COMPLETED, run
        assert list(run.telemetry_pending) == [_SYSTEMS[kind]]
        kinds.gate.hold(moment)
    finally:
        kinds.proxy.heal()
        move_link(kinds.mortal, kinds.mortal.evidently)
    await kinds.gate.wait_until_full(PATIENCE)
    await kinds.mortal.kill()
    kinds.mortal.restart()
    await kinds.assert_delivered_once(run)
    told = [each.type for each in await kinds.client.runs.activities(run.run_id)]
    assert sum(each.endswith(".telemetry_delivered") for each in told) == 1


async def _kill_during(kinds: SevenKinds, kind: str, moment: str) -> run_pb2.Run:
    kinds.gate.hold(moment)
    handle = await kinds.submit(kind)
    await kinds.gate.wait_until_full(PATIENCE)
    await kinds.mortal.kill()
    kinds.mortal.restart()
    return await handle.wait(timeout=PATIENCE)
