"""What ends a run's process, what it leaves behind, and what is said of it: real processes, run-service a fake."""

from __future__ import annotations

import asyncio
import functools
import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from optaic.common.v1 import flow_pb2
from optaic.run.v1 import run_pb2
from servicekit.ids import new_id
from support.polling import eventually
from support.processes import is_running
from support.worker import World
from worker.cgroup import Cgroup, sweep
from worker.execution import Outcome

REFRESH = flow_pb2.FLOW_KIND_REFRESH
DAEMONS = ("other", "session", "daemon")


def _submit(world: World, folder: Path, how: str, **config: Any) -> run_pb2.Run:
    dataset = world.dataset(definition="dying", how=how, folder=str(folder), **config)
    return world.runs.submit(dataset, REFRESH)


def _read_text(path: str) -> str:
    return Path(path).read_text(encoding="utf-8")


def _read_pid(folder: Path, name: str) -> int:
    return int((folder / f"{name}.pid").read_text(encoding="ascii") or 0)


def _has_ended(pid: int) -> bool:
    return not is_running(pid)


async def _nothing_lives(folder: Path, *names: str) -> None:
    for name in names:
        pid = _read_pid(folder, name)
        assert pid
        await eventually(functools.partial(_has_ended, pid), message=f"{name} ends")


@pytest.mark.parametrize(
    ("how", "kind", "said"),
    [
        ("exit 0", "PROCESS_EXITED", "exited with code 0 before it returned a result"),
        ("exit 7", "PROCESS_EXITED", "exited with code 7 before it returned a result"),
        ("SIGKILL", "PROCESS_KILLED", "was killed by SIGKILL, probably out of memory"),
        ("SIGTERM", "PROCESS_KILLED", "was killed by SIGTERM"),
        ("SIGSEGV", "PROCESS_KILLED", "was killed by SIGSEGV"),
        ("SIGABRT", "PROCESS_KILLED", "was killed by SIGABRT"),
        ("kill the guardian", "PROCESS_KILLED", "the process that supervised it"),
        ("close everything", "PROCESS_EXITED", "closed the connection"),
    ],
)
async def test_the_error_of_a_dead_process_has_its_last_output(
    world: World, tmp_path: Path, how: str, kind: str, said: str
) -> None:
    run = _submit(world, tmp_path, how)
    ending = await world.execute(run, tmp_path)
    assert ending.outcome is Outcome.FAILED
    assert run.status == run_pb2.RUN_STATUS_FAILED
    assert run.error.type == kind
    assert said in run.error.message
    if how not in {"kill the guardian", "close everything"}:  # whoever has the output tells
        lines = run.error.message.splitlines()
        assert "line 30" in lines
        assert "line 1" not in lines, "twenty lines are kept"
    if how == "SIGSEGV":
        assert "in string_at" in run.error.message, "where it happened"
        assert "dying_plugins.py" in _read_text(run.error.trace_uri)
    await _nothing_lives(tmp_path, "child")


async def test_what_fails_because_nobody_reads_its_output_any_more_was_killed(
    world: World, tmp_path: Path
) -> None:
    run = _submit(world, tmp_path, "print past the guardian")
    ending = await world.execute(run, tmp_path)
    assert ending.outcome is Outcome.FAILED
    assert run.error.type == "PROCESS_KILLED"
    assert "the process that supervised the run was killed" in run.error.message
    assert "BrokenPipeError" in run.error.message
    assert "dying_plugins.py" in _read_text(run.error.trace_uri)
    await _nothing_lives(tmp_path, "child")


async def test_an_exception_without_a_message_gets_one(world: World, tmp_path: Path) -> None:
    run = _submit(world, tmp_path, "memory")
    await world.execute(run, tmp_path)
    assert run.error.type == "MemoryError"
    assert "could not get the memory" in run.error.message
    assert "dying_plugins.py" in run.error.message


async def test_a_run_whose_report_exceeds_the_size_of_a_message_fails_with_that_reason(
    world: World, tmp_path: Path
) -> None:
    run = _submit(world, tmp_path, "report much")
    await world.execute(run, tmp_path)
    assert run.error.type == "TOO_LARGE"
    assert "4194304 are allowed" in run.error.message


async def test_the_lease_is_kept_while_user_code_holds_the_interpreter(world: World, tmp_path: Path) -> None:
    run = _submit(world, tmp_path, "hold")
    task = asyncio.create_task(world.execute(run, tmp_path))
    await eventually((tmp_path / "child.pid").exists)
    beats = world.runs.heartbeats
    await eventually(lambda: world.runs.heartbeats > beats + 10)
    assert not task.done()
    adjusted = _read_text(f"/proc/{_read_pid(tmp_path, 'child')}/oom_score_adj")
    assert int(adjusted) == 500, "the kernel is to take the child first"
    # It holds the interpreter for ten minutes, and still can be cancelled.
    run.status = run_pb2.RUN_STATUS_CANCELLED
    assert (await task).outcome is Outcome.CANCELLED
    await _nothing_lives(tmp_path, "child")


@pytest.mark.parametrize("then", ["return", "memory", "exit 7", "SIGKILL"])
async def test_every_process_of_a_run_ends_with_it(world: World, tmp_path: Path, then: str) -> None:
    run = _submit(world, tmp_path, "daemons", then=then)
    ending = await world.execute(run, tmp_path)
    assert ending.outcome is (Outcome.COMPLETED if then == "return" else Outcome.FAILED)
    for name in DAEMONS:
        assert _has_ended(_read_pid(tmp_path, name)), "before the run's end is reported"
    if then == "return":
        assert run.metrics["processes_left"] == len(DAEMONS)


async def test_a_helper_that_ends_with_its_process_is_not_left_behind(world: World, tmp_path: Path) -> None:
    run = _submit(world, tmp_path, "helper")
    assert (await world.execute(run, tmp_path)).outcome is Outcome.COMPLETED
    assert "processes_left" not in run.metrics


@pytest.mark.parametrize("how", ["cancelled", "stopped", "guardian asked to end"])
async def test_every_process_of_a_run_ends_when_the_run_is_stopped(
    world: World, tmp_path: Path, how: str
) -> None:
    run = _submit(world, tmp_path, "daemons", then="hold")
    task = asyncio.create_task(world.execute(run, tmp_path))
    await eventually(lambda: all((tmp_path / f"{name}.pid").exists() for name in DAEMONS))
    await eventually(lambda: all(_read_pid(tmp_path, name) for name in DAEMONS))
    if how == "cancelled":
        run.status = run_pb2.RUN_STATUS_CANCELLED
    elif how == "stopped":
        task.cancel()
    else:
        os.kill(_parent(_read_pid(tmp_path, "child")), signal.SIGTERM)  # in vain
        run.status = run_pb2.RUN_STATUS_CANCELLED
    await asyncio.wait({task})
    await _nothing_lives(tmp_path, "child", *DAEMONS)


async def test_the_next_worker_ends_processes_of_a_killed_guardian(world: World, tmp_path: Path) -> None:
    group = Cgroup.create()
    if group is None:
        pytest.skip("no control group can be made here")
    group.remove()
    run = _submit(world, tmp_path, "daemons", then="hold")
    task = asyncio.create_task(world.execute(run, tmp_path))
    await eventually(lambda: all((tmp_path / f"{name}.pid").exists() for name in DAEMONS))
    await eventually(lambda: all(_read_pid(tmp_path, name) for name in DAEMONS))
    os.kill(_parent(_read_pid(tmp_path, "child")), signal.SIGKILL)
    await task
    await asyncio.to_thread(sweep)
    await _nothing_lives(tmp_path, "child", *DAEMONS)


_TREE = """
import os, pathlib, sys, time
from worker import process_tree
assert process_tree.adopt_orphans()
if not os.fork():
    os.setsid()
    if not os.fork():
        draft = pathlib.Path(sys.argv[1] + ".draft")
        draft.write_text(str(os.getpid()))
        draft.rename(sys.argv[1])
        time.sleep(600)
    os._exit(0)
while not pathlib.Path(sys.argv[1]).exists():
    time.sleep(0.01)
print(len(process_tree.end_descendants(process_tree.reap, 10)))
"""


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux gives orphans to somebody else")
def test_orphans_are_ended_where_there_is_no_control_group(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", _TREE, str(tmp_path / "pid")], capture_output=True, check=True, timeout=60
    )
    assert int(done.stdout) >= 1
    assert _has_ended(int(_read_text(str(tmp_path / "pid"))))


_WITHOUT_A_DISK = """
import ctypes, json, os, sys, tempfile
from worker import frames
from worker.guardian import guard, make_lines
tempfile.tempdir = "/nowhere"
ours, guardians = make_lines()
if not os.fork():
    ours.close()
    guard(guardians, lambda _: ctypes.string_at(0))
guardians.close()
limits = {"file": "/nowhere/output", "bytes": 1000, "runs": 1}
ours.orders.sendall(frames.pack(frames.Kind.START, json.dumps(limits).encode()))
print((frames.receive(ours.orders) or (0, b"{}"))[1].decode())
"""


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux has files in memory")
def test_the_end_of_a_process_is_reported_without_a_writable_disk() -> None:
    done = subprocess.run(
        [sys.executable, "-c", _WITHOUT_A_DISK], capture_output=True, check=True, timeout=60
    )
    report = json.loads(done.stdout)
    assert report.get("exit_code") == -signal.SIGSEGV, done.stderr.decode()
    assert "in string_at" in report["fault"]


_ENVIRONMENT = """
import json, os
from worker import frames
from worker.guardian import guard, make_lines
ours, guardians = make_lines()
if not os.fork():
    ours.close()
    guard(guardians, lambda _: os.system("env | grep -e token -e canary"))
guardians.close()
limits = {"file": "/nowhere/output", "bytes": 1000, "runs": 1}
ours.orders.sendall(frames.pack(frames.Kind.START, json.dumps(limits).encode()))
print((frames.receive(ours.orders) or (0, b"{}"))[1].decode())
"""


def test_user_code_and_its_processes_do_not_get_the_workers_credentials() -> None:
    given = {"OPTAIC_SERVICE_TOKEN": "token-1", "PREFECT_API_KEY": "token-2", "RUN_NOTE": "canary"}
    done = subprocess.run(
        [sys.executable, "-c", _ENVIRONMENT],
        env={**os.environ, **given},
        capture_output=True,
        check=True,
        timeout=60,
    )
    assert json.loads(done.stdout)["tail"].splitlines() == ["RUN_NOTE=canary"]


def _parent(pid: int) -> int:
    return int(Path(f"/proc/{pid}/stat").read_text(encoding="ascii").rsplit(")", 1)[1].split()[1])


async def test_output_is_bounded_and_dropped_bytes_are_counted(world: World, tmp_path: Path) -> None:
    run = _submit(world, tmp_path, "print", lines=5000)
    ending = await world.execute(run, tmp_path, run_output_bytes=100_000)
    assert ending.outcome is Outcome.COMPLETED
    files = sorted((tmp_path / "run-output").iterdir())
    assert [file.name for file in files] == [f"{run.run_id}.log", f"{run.run_id}.log.1"]
    kept = "".join(file.read_text(encoding="utf-8") for file in reversed(files))
    assert len(kept) < 110_000
    assert f"{4999:099}\n" in kept
    assert f"{0:099}\n" not in kept
    dropped = int(float(str(run.metrics["output_bytes_dropped"])))
    assert f"[optaic: {dropped} bytes printed before" in kept
    printed = 5000 * 100 + sum(len(f"line {number}\n") for number in range(1, 31))
    own = [line for line in kept.splitlines(keepends=True) if not line.startswith("[optaic:")]
    assert dropped + len("".join(own)) == printed


async def test_the_output_of_old_runs_is_removed_and_nothing_else(world: World, tmp_path: Path) -> None:
    folder = tmp_path / "run-output"
    folder.mkdir()
    others = {"access.log", "audit.log.1", new_id()}
    for name in others:
        (folder / name).touch()
        os.utime(folder / name, (0, 0))
    old = [new_id() for _ in range(5)]
    for number, run_id in enumerate(old):
        for name in (f"{run_id}.log", f"{run_id}.log.1"):
            (folder / name).touch()
            os.utime(folder / name, (number, number))
    run = _submit(world, tmp_path, "print", lines=1)
    await world.execute(run, tmp_path, run_output_runs=3)
    names = {file.name for file in folder.iterdir()}
    kept = {f"{run_id}.log{end}" for run_id in old[3:] for end in ("", ".1")}
    assert names == {f"{run.run_id}.log"} | kept | others


async def test_output_that_cannot_be_written_does_not_fail_the_run(world: World, tmp_path: Path) -> None:
    (tmp_path / "run-output").touch()  # no folder
    run = _submit(world, tmp_path, "print", lines=10)
    assert (await world.execute(run, tmp_path)).outcome is Outcome.COMPLETED
    assert float(str(run.metrics["output_bytes_dropped"])) > 1000
