"""A wait looks seldom at what takes long, and fails at its deadline."""

import asyncio
import time

import pytest

from support.polling import eventually


async def test_the_first_true_value_is_returned() -> None:
    values = iter([0, None, 3, 4])

    async def look() -> int | None:
        return next(values)

    assert await eventually(look) == 3
    assert await eventually(lambda: next(values)) == 4


async def test_eventually_fails_with_the_last_value_after_the_deadline() -> None:
    with pytest.raises(AssertionError, match="last value 0"):
        await eventually(lambda: 0, 0.05)
    with pytest.raises(AssertionError, match="nobody came"):
        await eventually(lambda: 0, 0.05, "nobody came")


async def test_the_longer_it_takes_the_seldomer_is_looked(monkeypatch: pytest.MonkeyPatch) -> None:
    now, looks = [0.0], []

    async def sleep(seconds: float) -> None:
        now[0] += seconds

    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    monkeypatch.setattr(asyncio, "sleep", sleep)

    def look() -> bool:
        looks.append(now[0])
        return now[0] >= 10

    await eventually(look)
    assert len(looks) < 120
    assert looks[-1] < 10.3
    assert looks[5] < 0.2
