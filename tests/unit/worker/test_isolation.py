"""The sockets between a worker and the processes of a run, when a start fails or is cancelled."""

from __future__ import annotations

import asyncio
import os
import threading
from typing import Any, cast

import pytest

from support.polling import eventually
from worker import environment, isolation
from worker.children import Child, Forkserver
from worker.guardian import Line, make_lines
from worker.guardians import Guardians
from worker.isolation import Isolation
from worker.limits import Limits
from worker.run_output import OutputLimits

_CLOSED = -1
_LIMITS = OutputLimits("unused", 1, 1)


def _is_closed(line: Line) -> bool:
    return line.orders.fileno() == line.work.fileno() == _CLOSED


async def test_no_guardian_is_taken_for_an_order_that_cannot_be_written() -> None:
    taken: list[None] = []

    async def start() -> Line:
        taken.append(None)
        return make_lines()[0]

    with pytest.raises(TypeError, match="serializable"):
        async with Isolation(start, _LIMITS, bounds=Limits(memory_bytes=cast("int", object()))):
            pass
    assert not taken


@pytest.mark.parametrize("opened", [0, 1])
@pytest.mark.parametrize("is_cancelled", [False, True])
async def test_both_sockets_are_closed_when_the_block_is_not_entered(
    monkeypatch: pytest.MonkeyPatch, opened: int, *, is_cancelled: bool
) -> None:
    ours, guardians = make_lines()
    open_connection, calls = asyncio.open_connection, 0
    waiting = asyncio.Event()

    async def open_some(**given: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls <= opened:
            return await open_connection(**given)
        waiting.set()
        if not is_cancelled:
            raise OSError("no more descriptors")
        return await asyncio.Event().wait()

    async def start() -> Line:
        return ours

    async def enter() -> None:
        async with Isolation(start, _LIMITS):
            pass

    monkeypatch.setattr(asyncio, "open_connection", open_some)
    entering = asyncio.create_task(enter())
    await waiting.wait()
    if is_cancelled:
        entering.cancel()
    with pytest.raises(asyncio.CancelledError if is_cancelled else OSError):
        await entering
    assert _is_closed(ours)
    guardians.close()


async def test_a_cancelled_spawn_keeps_its_descriptors_until_the_process_has_them(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    begun, may_spawn = threading.Event(), threading.Event()
    lines: list[tuple[Line, Line]] = []
    were_open: list[bool] = []

    def make() -> tuple[Line, Line]:
        lines.append(make_lines())
        return lines[0]

    def spawn(*_: object, **__: object) -> None:
        begun.set()
        may_spawn.wait(30)
        were_open.append(not _is_closed(lines[0][1]))

    monkeypatch.setattr(isolation, "Settings", lambda: None)
    monkeypatch.setattr(environment, "clean", lambda *_: {})
    monkeypatch.setattr(isolation, "make_lines", make)
    monkeypatch.setattr(os, "posix_spawn", spawn)
    starting = asyncio.create_task(isolation.start_guardian())
    await eventually(begun.is_set)
    starting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await starting
    may_spawn.set()
    await eventually(lambda: _is_closed(lines[0][1]))
    assert were_open == [True]
    assert _is_closed(lines[0][0])


async def test_a_cancelled_fork_keeps_its_descriptors_until_the_process_has_them() -> None:
    begun, may_fork = asyncio.Event(), asyncio.Event()
    given: list[Any] = []

    class Server:
        async def run(self, _target: object, *sockets: Any, is_tied: bool) -> Child:
            assert not is_tied
            given.extend(sockets)
            begun.set()
            await may_fork.wait()
            assert all(each.fileno() != _CLOSED for each in sockets)
            return cast("Child", _Ended())

    class _Ended:
        pid = 1

        async def wait(self) -> int:
            return 0

    guardians = Guardians(cast("Forkserver", Server()))
    starting = asyncio.create_task(guardians.start())
    await begun.wait()
    starting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await starting
    assert all(each.fileno() != _CLOSED for each in given)
    may_fork.set()
    await eventually(lambda: all(each.fileno() == _CLOSED for each in given))
    await guardians.wait()
