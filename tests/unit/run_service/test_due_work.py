"""Due work: each queue has its own claim time, and an undecided item does not delay the others."""

from __future__ import annotations

import contextlib
import re
from collections.abc import AsyncIterator
from datetime import datetime, timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

import run_service
from run_service.config import Settings
from run_service.reconcile.due_work import DueWork, due_auto_refreshes, due_refreshes, due_retries, due_ticks
from servicekit.errors import UnavailableError
from support.clock import FakeClock

SERVICE = Path(run_service.__file__).parent


@contextlib.asynccontextmanager
async def infra() -> AsyncIterator[None]:
    yield


def dependencies(**settings: object) -> Any:
    values = {name: field.default for name, field in Settings.model_fields.items()} | settings
    return SimpleNamespace(
        clock=FakeClock(), database=SimpleNamespace(infra=infra), settings=SimpleNamespace(**values)
    )


async def test_undecided_work_waits_for_its_claim_to_expire_while_the_rest_of_the_batch_is_done() -> None:
    deps, claims, done = dependencies(), [], []

    async def claim(_: object, now: datetime, until: datetime, limit: int) -> list[tuple[str]]:
        claims.append((until - now, limit))
        return [("one",), ("two",), ("three",)][:limit]

    async def do(_: object, key: tuple[str]) -> None:
        done.append(key)
        if key == ("one",):
            raise UnavailableError("DEPENDENCY_UNAVAILABLE", "away")

    work = DueWork(deps, "some", claim=claim, do=do, batch=2, claim_seconds=7)
    assert await work.step(), "a full batch: more may be due"
    assert done == [("one",), ("two",)]
    assert claims == [(timedelta(seconds=7), 2)]
    assert not await DueWork(deps, "some", claim=claim, do=do, batch=9, claim_seconds=7).step()


@pytest.mark.parametrize(
    ("make", "queue"),
    [
        (due_retries, "retry"),
        (due_ticks, "tick"),
        (due_refreshes, "refresh"),
        (due_auto_refreshes, "auto_refresh"),
    ],
)
def test_each_queue_has_its_own_batch_and_claim(make: Any, queue: str) -> None:
    work = make(dependencies(**{f"{queue}_batch": 3, f"{queue}_claim_seconds": 4.0}))
    assert (work._batch, work._claim_time) == (3, timedelta(seconds=4))


def test_no_two_modules_read_the_same_claim_setting() -> None:
    readers: dict[str, set[str]] = {name: set() for name in Settings.model_fields if "claim_seconds" in name}
    for path in SERVICE.rglob("*.py"):
        for name in re.findall(r"settings\.(\w+_claim_seconds)", path.read_text()):
            readers[name].add(path.name)
    assert readers == {
        "dispatch_claim_seconds": {"dispatching.py"},
        "observe_claim_seconds": {"observing.py"},
        "end_claim_seconds": {"ending.py"},
        "retry_claim_seconds": {"due_work.py"},
        "tick_claim_seconds": {"due_work.py"},
        "refresh_claim_seconds": {"due_work.py"},
        "auto_refresh_claim_seconds": {"due_work.py"},
    }
