"""MLflow and Evidently away for the whole of each kind of run: the run completes, and they get what it owes when they are back."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from optaic.client import word
from optaic.run.v1 import run_pb2
from support import campaigns
from support.mortal_worker import move_link, silent_workspace
from support.polling import PATIENCE
from support.seven_kinds import CHOSEN, SevenKinds

pytestmark = pytest.mark.faults
_OWED = {"training": ["mlflow"], "monitoring": ["evidently"]}
_USERS = {*_OWED, "inference"}  # which asks MLflow for the champion


@asynccontextmanager
async def _away(kinds: SevenKinds, how: str) -> AsyncIterator[None]:
    """Take both away: they refuse at once, or take what is said and never answer."""
    if how == "silent":
        async with silent_workspace(kinds.mortal):
            kinds.proxy.stall()
            try:
                yield
            finally:
                kinds.proxy.heal()
        return
    move_link(kinds.mortal, None)
    await kinds.proxy.__aexit__()  # nobody listens
    try:
        yield
    finally:
        await kinds.proxy.__aenter__()
        move_link(kinds.mortal, kinds.mortal.evidently)


@asynccontextmanager
async def _champion(kinds: SevenKinds) -> AsyncIterator[None]:
    """Let inference read a promoted version."""
    trained = await kinds.complete("training")
    model = kinds.instance("training")
    await kinds.client.instances.promote_model_version(model.instance_id, trained.training.model_version)
    try:
        yield
    finally:
        await kinds.client.instances.remove_champion(model.instance_id, reason="the test has ended")
        await kinds.complete("inference")


@pytest.mark.parametrize("how", ["refused", "silent"] if campaigns.IS_FULL else ["refused"])
async def test_runs_of_all_kinds_complete_without_mlflow_and_evidently(kinds: SevenKinds, how: str) -> None:
    await kinds.prepare(CHOSEN)
    async with contextlib.AsyncExitStack() as stack:
        if "inference" in CHOSEN:
            await stack.enter_async_context(_champion(kinds))
        async with _away(kinds, how):
            calls = kinds.proxy.accepted
            runs = {kind: await _complete(kinds, kind) for kind in CHOSEN if kind not in _USERS}
            assert kinds.proxy.accepted == calls
            runs |= {kind: await _complete(kinds, kind) for kind in CHOSEN if kind in _USERS}
            owed = {kind: list(run.telemetry_pending) for kind, run in runs.items()}
            assert owed == {kind: _OWED.get(kind, []) for kind in CHOSEN}
        for kind, run in runs.items():
            await kinds.assert_delivered_once(run)
            told = [each.type for each in await kinds.client.runs.activities(run.run_id)]
            assert sum(each.endswith(".telemetry_delivered") for each in told) == (kind in _OWED), kind


async def _complete(kinds: SevenKinds, kind: str) -> run_pb2.Run:
    run: run_pb2.Run = await (await kinds.submit(kind)).wait(timeout=PATIENCE)
    assert run.status == run_pb2.RUN_STATUS_COMPLETED, run
    assert word(run, "flow_kind") == kind.upper()
    return run
