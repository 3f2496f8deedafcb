"""Supervision of one child process."""

import asyncio
import errno
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import psutil
import pytest

from devstack import leftovers
from devstack.processes import Process, Program, StartError
from devstack.state import State
from support.polling import eventually

FAMILY = """
import multiprocessing, pathlib, signal, sys, time
def sleep(): time.sleep(600)
if __name__ == "__main__":
    signal.signal(signal.SIGTERM, signal.SIG_IGN if "stubborn" in sys.argv else signal.SIG_DFL)
    child = multiprocessing.get_context("forkserver").Process(target=sleep)
    child.start()
    pathlib.Path(sys.argv[1]).write_text(str(child.pid))
    time.sleep(600)
"""
SUPERVISOR = """
import asyncio, os, sys
from pathlib import Path
from devstack.processes import Guard, Process, Program
from devstack.state import State

async def main():
    state = State(Path(sys.argv[1]))
    lock = await state.acquire()
    await Guard(state.root, lock).start()
    async def ready(): return (state.root / "family").exists()
    process = Process(state, Program("child", (sys.executable, sys.argv[2], str(state.root / "family"), *sys.argv[3:]), ready))
    await process.start()
    await process.wait_ready(30)
    print("ready", flush=True)
    await asyncio.sleep(600)
asyncio.run(main())
"""


async def yes() -> bool:
    return True


async def no() -> bool:
    return False


def python(text: str, *arguments: str) -> tuple[str, ...]:
    return (sys.executable, "-c", text, *arguments)


@pytest.fixture
def family(tmp_path: Path) -> Path:
    script = tmp_path / "family.py"
    script.write_text(FAMILY)
    return script


async def test_it_runs_until_it_is_stopped(state: State) -> None:
    process = Process(
        state, Program("child", python("import time; print('hello', flush=True); time.sleep(600)"), yes)
    )
    await process.start()
    await process.wait_ready(20)
    pid = process.pid
    assert pid is not None
    assert os.getsid(pid) == pid
    await eventually(lambda: "hello" in process.log.read_text())
    await process.stop(5)
    assert leftovers.identify(pid) is None
    assert process.phase == "stopped"


async def test_it_is_restarted_when_it_dies(state: State) -> None:
    process = Process(state, Program("child", python("import time; time.sleep(600)"), yes))
    await process.start()
    await process.wait_ready(20)
    first = process.pid
    assert first is not None
    os.kill(first, signal.SIGKILL)
    await eventually(lambda: process.phase == "ready" and process.pid != first)
    assert process.restarts == 1
    await process.stop(5)


async def test_it_is_started_again_once_the_machine_can(
    state: State, monkeypatch: pytest.MonkeyPatch
) -> None:
    process = Process(state, Program("child", python("import time; time.sleep(600)"), yes))
    await process.start()
    await process.wait_ready(20)
    first = process.pid
    assert first is not None
    start, refusals = asyncio.create_subprocess_exec, [OSError(errno.ENOMEM, "no memory")]

    async def refuse_once(*arguments: Any, **options: Any) -> asyncio.subprocess.Process:
        if refusals:
            raise refusals.pop()
        return await start(*arguments, **options)

    monkeypatch.setattr(asyncio, "create_subprocess_exec", refuse_once)
    os.kill(first, signal.SIGKILL)
    await eventually(lambda: process.phase == "ready" and process.pid not in {first, None})
    assert "cannot be started" in process.log.read_text()
    await process.stop(5)


async def test_a_program_that_keeps_dying_is_given_up_with_its_last_log_lines(state: State) -> None:
    process = Process(state, Program("child", python("raise SystemExit('no such thing')"), no))
    await process.start()
    with pytest.raises(StartError, match="no such thing"):
        await process.wait_ready(60)
    await process.stop(1)


async def test_one_that_does_not_become_ready_is_named(state: State) -> None:
    process = Process(state, Program("child", python("import time; time.sleep(600)"), no))
    await process.start()
    with pytest.raises(StartError, match=r"child is not ready after 0 s; last lines of .*child\.log"):
        await process.wait_ready(0.1)
    await process.stop(1)


async def test_stop_is_gentle_first(state: State) -> None:
    text = "import signal, sys, time\nsignal.signal(signal.SIGTERM, lambda *_: sys.exit(print('bye', flush=True)))\nprint('up', flush=True)\ntime.sleep(600)"
    process = Process(state, Program("child", python(text), yes))
    await process.start()
    await eventually(lambda: "up" in process.log.read_text())
    await process.stop(10)
    assert "bye" in process.log.read_text()


async def test_one_that_ignores_sigterm_is_killed_with_its_forkserver(state: State, family: Path) -> None:
    started = state.root / "family"
    process = Process(state, Program("child", (sys.executable, str(family), str(started), "stubborn"), yes))
    await process.start()
    await eventually(started.exists)
    await process.stop(0.2)
    assert not list(leftovers.find(state.root))


async def test_children_of_one_that_died_do_not_outlive_it(state: State, family: Path) -> None:
    started = state.root / "family"
    process = Process(state, Program("child", (sys.executable, str(family), str(started)), yes))
    await process.start()
    await eventually(lambda: started.exists() and bool(started.read_text()))
    grandchild = int(started.read_text())
    assert process.pid is not None
    os.kill(process.pid, signal.SIGKILL)
    await eventually(lambda: leftovers.identify(grandchild) is None)
    await process.stop(5)


@pytest.mark.parametrize("mode", ["", "stubborn"])
async def test_a_killed_supervisor_leaves_nothing(state: State, family: Path, mode: str) -> None:
    supervisor = subprocess.Popen(  # noqa: ASYNC220 - it is to be killed
        python(SUPERVISOR, str(state.root), str(family), *filter(None, [mode])), stdout=subprocess.PIPE
    )
    with supervisor:
        assert supervisor.stdout is not None
        assert await asyncio.to_thread(supervisor.stdout.readline) == b"ready\n"
        assert len(list(leftovers.find(state.root))) >= 3
        supervisor.kill()
    await eventually(lambda: not list(leftovers.find(state.root)))
    # Its guard held the folder while it swept; afterwards the folder is free.
    await eventually(lambda: not state.in_use())


async def test_leftovers_are_distinguished_from_another_process_with_the_same_pid(state: State) -> None:
    with subprocess.Popen(python("import time; time.sleep(600)")) as stranger:  # noqa: ASYNC220 - not ours
        start = psutil.Process(stranger.pid).create_time()
        (state.root / leftovers.RECORDS).write_text(f'{{"child": [{stranger.pid}, {start - 100}]}}')
        assert not list(leftovers.find(state.root))
        (state.root / leftovers.RECORDS).write_text(f'{{"child": [{stranger.pid}, {start}]}}')
        assert [process.pid for process in leftovers.find(state.root)] == [stranger.pid]
        stranger.kill()
