"""Data of a whole stack is moved to its object store and back, by a command that is killed at each step: nothing changes by it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from devstack import seaweedfs
from optaic import errors
from optaic.client import AsyncClient
from optaic.instance.v1 import instance_pb2
from optaic.lineage.v1 import lineage_pb2
from optaic.run.v1 import run_pb2
from support.campaigns import IS_FULL
from support.client import connected_client, create_dataset, create_project
from support.object_store import needs_server
from support.polling import PATIENCE
from support.stack import RunningStack, running_stack

pytestmark = [
    pytest.mark.e2e,
    pytest.mark.faults,
    needs_server,
    pytest.mark.skipif(not IS_FULL, reason="it starts a stack twice: OPTAIC_FAULTS=full"),
]
# The lines at which the command is held; at the last one it is killed. Without any it is killed at once.
_MOMENTS: tuple[tuple[str, ...], ...] = (
    (),
    ("copied ",),
    ("runs are held",),
    ("runs are held", "copied "),  # in the last pass, of which a new file is left
    ("files are the same on both sides",),
    ("is read at",),
)


def _write(path: Path, days: int) -> None:
    dates = [date(2024, 1, 1) + timedelta(days=day) for day in range(days)]
    pl.DataFrame({"date": dates, "entity": "a", "close": [float(day) for day in range(days)]}).write_parquet(
        path
    )


def _command(stack: RunningStack, *arguments: str) -> tuple[Sequence[str], Mapping[str, str]]:
    environment = {**os.environ, **stack.client_environment(), "PYTHONUNBUFFERED": "1"}
    environment["PYTHONPATH"] = os.pathsep.join(filter(None, sys.path))
    return [sys.executable, "-m", "optaic.cli", "admin", "move-data", *arguments], environment


def _move(stack: RunningStack, *arguments: str) -> str:
    command, environment = _command(stack, *arguments)
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def _kill_at(stack: RunningStack, moment: Sequence[str], new: Path, *arguments: str) -> None:
    """Start the command, and kill it at a moment; where it is held before that, a new file comes."""
    command, environment = _command(stack, *arguments)
    command = [sys.executable, "-m", "support.held_command", json.dumps(moment), *command[3:]]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, env=environment, stdin=pipe, stdout=pipe, text=True) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        try:
            for number, text in enumerate(moment):
                if number:
                    new.write_bytes(b"of a run that has just ended")
                    process.stdin.write("\n")
                    process.stdin.flush()
                assert any(text in line for line in process.stdout), f"it never printed {text!r}"
        finally:
            process.kill()
    assert process.returncode == -signal.SIGKILL, moment


async def _run(client: AsyncClient, instance: instance_pb2.Instance) -> run_pb2.Run:
    run = await (await client.runs.submit(instance)).wait(timeout=PATIENCE)
    assert run.status == run_pb2.RUN_STATUS_COMPLETED, run.error
    return run


async def _states(
    client: AsyncClient, instances: Sequence[instance_pb2.Instance]
) -> list[lineage_pb2.FlowState]:
    """Return the states of the flows, without the places of their data."""
    states = [await client.lineage.state(each) for each in instances]
    for state in states:
        state.current_version.ClearField("uri")
    return states


async def _content(client: AsyncClient, instances: Sequence[instance_pb2.Instance]) -> list[Any]:
    return [(await client.data.read(each.name)).rows() for each in instances]


async def test_a_moved_tenant_is_as_before_and_goes_on_incrementally(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    state, source = tmp_path / "state", tmp_path / "prices.parquet"
    monkeypatch.setenv("OPTAIC_STATE", str(state))  # where the client finds the credential
    files = (tmp_path / "data").as_uri()
    _write(source, 30)
    with running_stack(state, OPTAIC_OBJECT_STORE="seaweedfs", OPTAIC_DATA_ROOT=files) as stack:
        async with connected_client(stack) as client:
            project = await create_project(client, "moved")
            prices = await create_dataset(client, project, "prices", "file", {"url": str(source)})
            derived = await create_dataset(
                client,
                project,
                "derived",
                "expression",
                {"expression": "MEAN(close, 3)"},
                upstreams={"input": prices.instance_id},
            )
            both = (prices, derived)
            for each in both:
                await _run(client, each)
            _write(source, 31)
            await _run(client, prices)
            before, content = await _states(client, both), await _content(client, both)
            runs = {each.run_id: each for each in await client.runs.list()}
            for moment in _MOMENTS:
                _kill_at(stack, moment, tmp_path / "data/default/new", "--to", seaweedfs.DATA_ROOT)
                assert await _states(client, both) == before, moment
                assert await _content(client, both) == content, moment
            _move(stack, "--to", seaweedfs.DATA_ROOT)
            with pytest.raises(errors.UnavailableError, match="being moved"):
                await client.runs.submit(derived)
    with running_stack(state, OPTAIC_OBJECT_STORE="seaweedfs", OPTAIC_DATA_ROOT=seaweedfs.DATA_ROOT) as stack:
        async with connected_client(stack) as client:
            _move(stack, "--finish")
            _move(stack, "--delete-source", files, "--yes")
            assert await _states(client, both) == before
            assert await _content(client, both) == content
            for listed in await client.runs.list():
                assert listed.status == runs[listed.run_id].status
                assert listed.output_version.digest == runs[listed.run_id].output_version.digest
                assert listed.outputs_uri == runs[listed.run_id].outputs_uri.replace(
                    files, seaweedfs.DATA_ROOT
                )
            run = await _run(client, derived)
            assert run.metrics["computed_from"] == "2024-01-31"
            assert not run.full_because
            after = await _states(client, both)
            assert [each.is_fresh for each in after] == [True, True]
            content = await _content(client, both)
            _move(stack, "--to", str(tmp_path / "back"))
            assert await _states(client, both) == after
            assert await _content(client, both) == content
