"""The whole stack with real servers; small programs stand in for the services and the worker."""

import asyncio
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from devstack import Endpoints, Settings, Stack, StackInUseError, StartError, checks, leftovers
from devstack.report import read_status
from devstack.state import State
from support.polling import eventually


@pytest.fixture
def settings(state: State, standins: Path, monkeypatch: pytest.MonkeyPatch) -> Settings:
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join((str(standins), os.environ.get("PYTHONPATH", ""))))
    monkeypatch.setenv("OPTAIC_STATE", str(state.root))
    return Settings(prefect_ui=False)


def devstack(*arguments: str, **options: Any) -> subprocess.Popen[bytes]:
    return subprocess.Popen([sys.executable, "-m", "devstack", *arguments], **options)


async def test_a_stack_starts_stops_and_resumes_in_the_background(settings: Settings, state: State) -> None:
    stack = Stack(settings=settings)
    await stack.up(wait="services")
    try:
        assert "prefect" not in stack.seconds, "services must not wait for Prefect"
        assert await checks.grpc_serves(stack.endpoints.run)
        with pytest.raises(StackInUseError):
            await Stack(settings=settings).up()
        await stack.wait_ready()
        report = await stack.status()
        assert report["phase"] == "ready"
        silent = {name for name, entry in report["processes"].items() if not entry["answers"]}
        assert silent <= {"mlflow"}, report  # which comes last, and nobody waits for it
        assert set(report["processes"]) == {
            *("postgres", "nats", "prefect", "mlflow", "worker", "gateway"),
            *("instance-service", "run-service", "lineage-service", "status-service"),
        }
        assert (state.root / "evidently").is_dir()
        address = stack.endpoints.mlflow.partition("//")[2]
        await eventually(lambda: checks.http_answers(address, "/health"), 90)
    finally:
        await stack.down()
    assert not list(leftovers.find(state.root))
    assert (await read_status(state))["phase"] == "stopped"

    # Once more, in the background, with the data of before.
    for _ in range(2):
        with devstack("up", stdout=subprocess.PIPE) as child:
            output = (await asyncio.to_thread(child.communicate))[0].decode()
        assert child.returncode == 0
        assert "subscriber" in output
        assert "gRPC" in output
    assert Endpoints.load(state) == stack.endpoints
    supervisor = state.supervisor()
    assert supervisor is not None
    with devstack("status", "--json", stdout=subprocess.PIPE) as child:
        report = json.loads((await asyncio.to_thread(child.communicate))[0])
    assert (report["phase"], report["pid"]) == ("ready", supervisor["pid"])
    with devstack("down") as child:
        await asyncio.to_thread(child.wait)
    assert not list(leftovers.find(state.root))
    assert leftovers.identify(supervisor["pid"]) is None
    assert not state.in_use()


@pytest.mark.usefixtures("settings")
@pytest.mark.parametrize(
    ("number", "seconds"),
    [(signal.SIGINT, 0.0), (signal.SIGTERM, 0.4), (signal.SIGHUP, 1.2), (signal.SIGINT, 2.5)],
)
async def test_a_signal_at_any_point_leaves_nothing(
    state: State, number: signal.Signals, seconds: float
) -> None:
    with devstack("run", stdout=subprocess.DEVNULL) as child:
        await eventually(lambda: state.supervisor() is not None)
        due = time.monotonic() + seconds
        await eventually(lambda: time.monotonic() >= due)
        child.send_signal(number)
        assert await asyncio.to_thread(child.wait, 30) == 128 + number
    assert not list(leftovers.find(state.root))
    await eventually(lambda: not state.in_use())


@pytest.mark.usefixtures("settings")
async def test_an_interrupted_up_leaves_nothing(state: State) -> None:
    with devstack("up", stdout=subprocess.DEVNULL) as child:
        await eventually(lambda: bool(leftovers.recorded(state.root)))
        child.send_signal(signal.SIGINT)
        assert await asyncio.to_thread(child.wait, 30) == 130
    assert not list(leftovers.find(state.root))
    assert not state.in_use()


async def test_a_killed_supervisor_leaves_nothing_and_the_next_start_works(
    settings: Settings, state: State
) -> None:
    with devstack("run", stdout=subprocess.DEVNULL) as child:
        await eventually(lambda: "worker" in leftovers.recorded(state.root))
        child.kill()
    stack = Stack(settings=settings)
    await stack.up(wait="services")
    await stack.down()


async def test_a_service_that_does_not_start_is_named_and_all_is_stopped(
    settings: Settings, standins: Path, state: State
) -> None:
    (standins / "run_service.py").write_text("raise SystemExit('no luck today')")
    with pytest.raises(StartError, match="no luck today"):
        await Stack(settings=settings).up()
    assert "no luck today" in state.failure_of(None)
    assert not list(leftovers.find(state.root))
    assert not state.in_use()


@pytest.mark.usefixtures("settings")
async def test_a_configured_port_in_use_is_an_error(state: State) -> None:
    server = await asyncio.start_server(lambda _, writer: writer.close(), "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    with devstack("up", env={**os.environ, "OPTAIC_RUN_PORT": str(port)}, stderr=subprocess.PIPE) as child:
        errors = (await asyncio.to_thread(child.communicate))[1].decode()
    server.close()
    await server.wait_closed()
    assert child.returncode == 1
    assert f"port {port}, configured for run, is in use" in errors
    assert not list(leftovers.find(state.root))


async def test_external_servers_are_used_instead(settings: Settings, tmp_path: Path) -> None:
    lender = Stack(tmp_path / "lender", settings)
    await lender.up(wait="services")
    try:
        lent = lender.endpoints
        borrower = Stack(settings=settings.model_copy(update={"postgres_url": lent.postgres_admin}))
        # Its own logins get its own passwords: the lender's services would notice, its stand-ins do not.
        await borrower.up(wait="services")
        try:
            assert "postgres" not in borrower.processes
            assert borrower.endpoints.postgres_admin == lent.postgres_admin
        finally:
            await borrower.down()
    finally:
        await lender.down()
    assert not list(leftovers.find(tmp_path / "lender"))
