"""The stack with Centrifugo tells where it is and how it is, and the commands of docs/realtime.md show a run live."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import signal
import sys
from pathlib import Path

import pytest
from grpc_health.v1 import health_pb2
from grpc_health.v1.health_pb2_grpc import HealthStub

import devstack
from devstack import checks, ports
from support.client import connected_client, create_dataset, create_project
from support.clients_page import commands_of
from support.live_page import EXAMPLE
from support.polling import PATIENCE, eventually
from support.stack import RunningStack


@pytest.fixture
def live(stack: RunningStack) -> RunningStack:
    if not stack.endpoints.centrifugo:
        pytest.skip("the stack was started before there was a Centrifugo: set OPTAIC_CENTRIFUGO_BINARY")
    return stack


async def test_the_stack_prints_the_address_and_the_health_of_centrifugo(live: RunningStack) -> None:
    address = live.endpoints.centrifugo.replace("http://", "ws://") + "/connection/websocket"
    printed = devstack.describe(live.endpoints, devstack.State(live.settings.root))
    assert f"Centrifugo, live messages\n  WebSocket {address}\n" in printed
    report = await asyncio.to_thread(devstack.status, live.settings)
    assert report["processes"]["centrifugo"]["answers"]
    for service in ("run", "status"):
        channel = live.endpoints.certificates_of("client").open_channel(getattr(live.endpoints, service), ())
        async with channel:
            answer = await HealthStub(channel).Check(
                health_pb2.HealthCheckRequest(service="dependency/centrifugo")
            )
        assert answer.status == health_pb2.HealthCheckResponse.SERVING, service


async def test_the_documented_commands_show_a_run_live(live: RunningStack, tmp_path: Path) -> None:
    if missing := [each for each in ("npm", "node") if shutil.which(each) is None]:
        pytest.skip(f"not installed: {', '.join(missing)}")
    async with connected_client(live) as client:
        project = await create_project(client, "live")
        name = f"live-{project[-6:]}"
        config = {"symbols": ["AAPL"], "start": "2020-01-02", "end": "2020-03-31"}
        instance = await create_dataset(client, project, name, "sp500_prices", config)
        port = ports.find_free()
        commands = commands_of("A page", "realtime.md").replace("momentum", name).replace("8080", str(port))
        assert name in commands
        assert str(port) in commands
        shutil.copytree(
            EXAMPLE, tmp_path / "examples" / "realtime", ignore=shutil.ignore_patterns("node_modules")
        )
        paths = [str(Path(sys.executable).parent), os.environ["PATH"]]
        environment = {**os.environ, **live.client_environment(), "PATH": os.pathsep.join(paths)}
        with (tmp_path / "log").open("wb") as log:
            shell = await asyncio.create_subprocess_exec(
                *("/bin/sh", "-e", "-c", commands),
                cwd=tmp_path,
                env=environment,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        try:

            async def is_served() -> bool:
                assert shell.returncode is None, (tmp_path / "log").read_text()
                return await checks.http_answers(f"127.0.0.1:{port}", "/tokens.json")

            await eventually(is_served, PATIENCE)
            folder = tmp_path / "examples" / "realtime"
            assert (folder / "tokens.json").stat().st_mode & 0o777 == 0o600
            follower = await asyncio.create_subprocess_exec(
                *("node", "follow.js", f"http://127.0.0.1:{port}/tokens.json"),
                cwd=folder,
                stdout=asyncio.subprocess.PIPE,
            )
            try:
                told = [await _next(follower, name)]
                await client.runs.submit(instance)
                while told[-1] != "ready":
                    told.append(await _next(follower, name))
            finally:
                follower.kill()
                await follower.wait()
        finally:
            os.killpg(shell.pid, signal.SIGKILL)
            await shell.wait()
    assert list(dict.fromkeys(told)) == ["not_initialized", "running", "ready"]


async def _next(follower: asyncio.subprocess.Process, name: str) -> str:
    """Return the next status that the example prints."""
    assert follower.stdout is not None
    line = json.loads(await asyncio.wait_for(follower.stdout.readline(), PATIENCE))
    assert line["name"] == name
    return str(line["message"]["status"])
