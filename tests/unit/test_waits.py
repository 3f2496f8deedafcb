"""How long every place waits before it tries again."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
from collections.abc import AsyncIterator, Awaitable, Callable
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace
from typing import Any, cast
from uuid import uuid4

import grpc
import pytest
from grpc.aio import Metadata

from instance_service.ports import OutsideUnavailableError
from instance_service.reconcile import reconciler
from instance_service.use_cases.dependencies import Signal
from worker.executor import Executor
from worker.reports import persist

Waits = list[float]
CALL_SECONDS = 10.0


@pytest.fixture
def slept(monkeypatch: pytest.MonkeyPatch) -> Waits:
    """Record what is slept, and sleep none of it."""
    waits: Waits = []
    yield_to_others = asyncio.sleep

    async def sleep(seconds: float) -> None:
        waits.append(seconds)
        await yield_to_others(0)

    monkeypatch.setattr(asyncio, "sleep", sleep)
    return waits


@pytest.fixture
def awaited(monkeypatch: pytest.MonkeyPatch) -> Waits:
    """Record how long something is awaited, and let it time out at once; calls of the executor have their time."""
    waits: Waits = []

    @contextlib.asynccontextmanager
    async def timeout(seconds: float) -> AsyncIterator[None]:
        if seconds != CALL_SECONDS:
            waits.append(seconds)
            raise TimeoutError
        yield

    monkeypatch.setattr(asyncio, "timeout", timeout)
    return waits


def failing(times: int, error: Exception) -> Callable[[], Awaitable[None]]:
    numbers = itertools.count(1)

    async def call() -> None:
        if next(numbers) <= times:
            raise error

    return call


def executor(pool: object = None) -> Executor:
    settings = SimpleNamespace(
        tenants=["default", "acme"],
        poll_seconds=0.5,
        cancellation_poll_seconds=3600,
        worker_grace_seconds=0,
        concurrency=1,
    )
    return Executor(cast("Any", settings), cast("Any", pool), cast("Any", None))


def test_a_worker_looks_less_often_while_it_is_told_of_the_flow_runs_of_all_its_tenants() -> None:
    worker = executor()
    worker._told.add("default")
    assert worker._pause() == 0.5
    worker._told.add("acme")
    assert worker._pause() == 2.5


@pytest.mark.parametrize("is_full", [True, False])
async def test_a_worker_that_had_no_room_for_more_looks_when_a_flow_run_ends(is_full: bool) -> None:
    worker = executor()
    worker._may_others_wait = is_full
    worker._forget(uuid4(), cast("Any", None))
    assert worker._hint.is_set() is is_full


def test_an_instance_that_cannot_be_paired_is_tried_again_after_half_a_second_up_to_five() -> None:
    for attempts, wait in enumerate([0.5, 1, 2, 4, 5, 5, 5], start=1):
        waits = [reconciler._delay(attempts) for _ in range(20)]
        assert 0.75 * wait <= min(waits) < max(waits) <= 1.25 * wait


def test_an_outside_system_that_does_not_answer_is_left_alone_for_up_to_two_seconds() -> None:
    gate, now, pauses = reconciler._Gate(), datetime(2026, 1, 1, tzinfo=UTC), []
    for _ in range(6):
        gate.close(now, OutsideUnavailableError("Away", "away"))
        assert gate.resume_time is not None
        pauses.append((gate.resume_time - now) / timedelta(seconds=1))
    assert pauses == [0.25, 0.5, 1, 2, 2, 2]
    gate.open()
    gate.close(now, OutsideUnavailableError("Away", "away"))
    assert gate.resume_time == now + timedelta(seconds=0.25)


async def test_a_call_that_waits_for_an_instance_looks_ever_more_rarely(awaited: Waits) -> None:
    with Signal().listening("one") as wait:
        for _ in range(8):
            await wait(3600)
        await wait(0.01)
    assert awaited == [0.1, 0.2, 0.4, 0.8, 1.6, 3.2, 5, 5, 0.01]


async def test_a_report_is_repeated_after_a_tenth_of_a_second_up_to_five(slept: Waits) -> None:
    away = grpc.aio.AioRpcError(grpc.StatusCode.UNAVAILABLE, Metadata(), Metadata(), "away")
    await persist(failing(8, away), patience=3600)
    for wait, expected in zip(slept, [0.1, 0.2, 0.4, 0.8, 1.6, 3.2, 5, 5], strict=True):
        assert 0.8 * expected <= wait <= 1.2 * expected


async def test_the_state_of_a_flow_run_is_recorded_again_while_prefect_is_away(slept: Waits) -> None:
    await executor()._record(failing(7, OSError("away")))
    assert slept == [0.2, 0.4, 0.8, 1.6, 3.2, 5, 5]
    slept.clear()
    await executor()._record(failing(1000, OSError("away")))
    assert len(slept) == 60


async def test_a_worker_polls_ever_more_slowly_while_prefect_does_not_answer(awaited: Waits) -> None:
    stop, ensure = asyncio.Event(), failing(5, OSError("away"))

    async def list_due(_: int) -> list[object]:
        if len(awaited) == 6:
            stop.set()
        return []

    await executor(SimpleNamespace(ensure=ensure, list_due=list_due)).run(stop)
    assert awaited == [1, 2, 4, 5, 5, 0.5, 0.5]
