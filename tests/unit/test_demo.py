"""What the demo says where a step does not come to its end."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any, cast

import pytest

from demo.freshness import FOLLOWER, _follow
from demo.stage import Stage, StepFailedError, within
from optaic.instance.v1 import instance_pb2
from optaic.run.v1 import run_pb2


async def test_a_step_that_takes_too_long_says_what_was_expected() -> None:
    with pytest.raises(StepFailedError, match="expected the tide to turn within 0 s"):
        async with within(0.01, "the tide to turn"):
            await asyncio.Event().wait()


async def test_a_timeout_of_the_step_itself_stays_as_it_is() -> None:
    with pytest.raises(TimeoutError, match="of its own"):
        async with within(60, "the tide to turn"):
            raise TimeoutError("of its own")


async def test_a_failed_run_of_the_follower_ends_the_step_at_once() -> None:
    run = run_pb2.Run(status=run_pb2.RUN_STATUS_FAILED)
    run.error.type, run.error.message = "ValueError", "no data"

    async def runs_of(_: Any) -> list[run_pb2.Run]:
        return [run]

    client = SimpleNamespace(runs=SimpleNamespace(list=runs_of))
    stage = SimpleNamespace(client=client, instances={FOLLOWER: instance_pb2.Instance()})
    with pytest.raises(StepFailedError, match="FAILED: ValueError: no data"):
        await _follow(cast("Stage", stage), 1)
