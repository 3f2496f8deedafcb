"""What a state folder remembers, and who may hold it."""

import asyncio
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from devstack.state import StackInUseError, State

HOLDER = """
import asyncio, sys
from pathlib import Path
from devstack.state import State
async def main():
    state = State(Path(sys.argv[1]))
    await state.acquire()
    state.announce("starting")
    print("held", flush=True)
    sys.stdin.read()
asyncio.run(main())
"""


@pytest.fixture
def state(tmp_path: Path) -> State:
    state = State(tmp_path / "state")
    state.create()
    return state


def test_secrets_are_drawn_once(state: State) -> None:
    assert State(state.root).secrets() == state.secrets()
    assert len(set(state.secrets().values())) == len(state.secrets())


def test_each_tenants_worker_has_a_token_of_its_own(state: State) -> None:
    drawn = state.executor_tokens(("default", "acme"))
    assert State(state.root).executor_tokens(("acme",)) == {"acme": drawn["acme"]}
    assert len(set(drawn.values())) == 2


def test_credentials_are_readable_by_their_owner_only(state: State) -> None:
    state.secrets()
    assert (state.root / "stack.json").stat().st_mode & 0o777 == 0o600


def test_saving_keeps_the_earlier_values(state: State) -> None:
    state.save(ports={"a": 1})
    state.save(endpoints={"b": "x"})
    assert json.loads((state.root / "stack.json").read_text()) == {"ports": {"a": 1}, "endpoints": {"b": "x"}}


def test_a_damaged_file_is_treated_as_missing(state: State) -> None:
    (state.root / "stack.json").write_text("{")
    assert state.load() == {}


async def test_one_supervisor_at_a_time(state: State) -> None:
    with subprocess.Popen(  # noqa: ASYNC220 - a second process is the point
        [sys.executable, "-c", HOLDER, str(state.root)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as holder:
        assert holder.stdout is not None
        assert await asyncio.to_thread(holder.stdout.readline) == b"held\n"
        with pytest.raises(StackInUseError, match=f"pid {holder.pid}"):
            await state.acquire()
        supervisor = state.supervisor()
        assert supervisor is not None
        assert supervisor["pid"] == holder.pid
        holder.kill()
    assert state.supervisor() is None
    await state.acquire()
    state.release()
    await state.acquire()
    state.release()


def test_a_reused_pid_is_not_taken_as_the_supervisor(state: State) -> None:
    state.announce("ready")
    assert state.supervisor() is not None
    known = json.loads((state.root / "supervisor.json").read_text())
    (state.root / "supervisor.json").write_text(json.dumps({**known, "start": known["start"] - 100}))
    assert state.supervisor() is None


def test_why_a_start_failed_is_remembered(state: State) -> None:
    state.announce("failed", error="no disk")
    assert state.failure_of(None) == state.failure_of(os.getpid()) == "no disk"
    assert not state.failure_of(1)
    state.announce("stopped")
    assert not state.failure_of(None)


def test_a_state_of_an_earlier_release_gets_the_passwords_that_are_new(state: State) -> None:
    earlier = {name: value for name, value in state.secrets().items() if not name.endswith("_login")}
    state.save(secrets=earlier)
    drawn = State(state.root).secrets()
    assert {name: drawn[name] for name in earlier} == earlier
    assert set(drawn) - set(earlier) == {"prefect_login", "mlflow_login"}
    assert all(len(drawn[name]) == 32 for name in ("prefect_login", "mlflow_login"))
    assert State(state.root).secrets() == drawn
