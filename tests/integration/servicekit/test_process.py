"""A service's process starts by itself, stops when asked, and never dies quietly."""

import asyncio
import itertools
import json
import os
import signal
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import grpc
import pytest
from google.protobuf.wrappers_pb2 import StringValue
from grpc_health.v1 import health_pb2, health_pb2_grpc

from integration.servicekit.echo import EchoServicer, bare_channel, method, serving, serving_parts, watch
from integration.servicekit.sample import make_settings
from servicekit.app import App, serve
from support.broker import NatsServer
from support.polling import eventually

ROOT = Path(__file__).parents[3]
TEXT = StringValue(value="hello")
_PATIENCE = 90.0  # starting takes seconds of processor time, and others want it too


class ServiceProcess:
    """The sample service as a process of its own."""

    def __init__(self, process: asyncio.subprocess.Process, address_file: Path) -> None:
        self.process = process
        self._address_file = address_file

    async def address(self) -> str:
        """Return host:port once it serves."""
        return await eventually(
            lambda: self._address_file.read_text() if self._address_file.exists() else "", _PATIENCE
        )

    async def ended(self) -> tuple[int, list[dict[str, str]]]:
        """Return its exit status and its log."""
        output, _ = await asyncio.wait_for(self.process.communicate(), _PATIENCE)
        lines = output.decode().splitlines()
        assert self.process.returncode is not None
        return self.process.returncode, [json.loads(line) for line in lines if line.startswith("{")]


Start = Callable[..., Awaitable[ServiceProcess]]


@pytest.fixture
async def start(urls: dict[str, str], nats: NatsServer, tmp_path: Path) -> AsyncIterator[Start]:
    started: list[ServiceProcess] = []
    numbers = itertools.count()

    async def start(*arguments: str, **environment: str) -> ServiceProcess:
        address_file = tmp_path / f"address{next(numbers)}"
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "integration.servicekit.sample_service", str(address_file), *arguments),
            env={
                **os.environ,
                **{f"OPTAIC_{name.upper()}": url for name, url in urls.items()},
                "OPTAIC_NATS_URL": nats.url,
                "PYTHONPATH": os.pathsep.join(str(ROOT / name) for name in ("tests", "shared", "deploy")),
                **environment,
            },
            stdout=asyncio.subprocess.PIPE,
        )
        started.append(ServiceProcess(process, address_file))
        return started[-1]

    yield start
    for service in started:
        if service.process.returncode is None:
            service.process.kill()
            await service.process.communicate()


@asynccontextmanager
async def watching(address: str) -> AsyncIterator[grpc.aio.UnaryStreamCall]:
    async with bare_channel(address) as channel:
        call = watch(channel)(TEXT)
        await call.read()
        yield call


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_a_signal_stops_it_gracefully(start: Start, number: signal.Signals) -> None:
    service = await start(OPTAIC_SHUTDOWN_GRACE_SECONDS="30")
    async with bare_channel(await service.address()) as channel:
        call = asyncio.ensure_future(_answer(method(channel, "take_long")(StringValue(value="2"))))

        async def is_under_way() -> bool:
            return bool((await method(channel, "is_under_way")(TEXT)).value)

        await eventually(is_under_way)
        service.process.send_signal(number)
        assert await call == "2"
    status, log = await service.ended()
    assert status == 0
    assert [line["event"] for line in log if line["event"] in {"serving", "stopped"}] == [
        "serving",
        "stopped",
    ]
    assert not [line for line in log if line["level"] == "error"]


async def _answer(call: grpc.aio.UnaryUnaryCall) -> str:
    return (await call).value  # type: ignore[no-any-return]  # channels are untyped


async def test_a_watcher_is_sent_elsewhere_when_it_stops(start: Start) -> None:
    service = await start()
    async with watching(await service.address()) as call:
        service.process.send_signal(signal.SIGTERM)
        with pytest.raises(grpc.aio.AioRpcError) as failure:  # noqa: PT012 - some answer of the stream fails
            while await call.read() is not grpc.aio.EOF:
                pass
        assert failure.value.code() is grpc.StatusCode.UNAVAILABLE
    assert (await service.ended())[0] == 0


async def test_background_work_that_ends_takes_the_process_with_it(start: Start) -> None:
    service = await start("crash")
    status, log = await service.ended()
    assert status != 0
    assert "stopped" in {line["event"] for line in log}


async def test_a_service_without_a_broker_serves_and_reports_it(start: Start, nats: NatsServer) -> None:
    nats.kill()
    service = await start()
    async with bare_channel(await service.address()) as channel:
        assert (await method(channel, "echo")(TEXT)).value == "hello"
        health = health_pb2_grpc.HealthStub(channel)
        overall = await health.Check(health_pb2.HealthCheckRequest())
        broker = await health.Check(health_pb2.HealthCheckRequest(service="dependency/broker"))
        assert overall.status == health_pb2.HealthCheckResponse.SERVING
        assert broker.status == health_pb2.HealthCheckResponse.NOT_SERVING
    service.process.send_signal(signal.SIGTERM)
    assert (await service.ended())[0] == 0


async def test_two_replicas_start_at_once(start: Start) -> None:
    services = await asyncio.gather(start(), start())
    for service in services:
        async with bare_channel(await service.address()) as channel:
            assert (await method(channel, "echo")(TEXT)).value == "hello"


async def test_a_port_that_is_taken_ends_the_start_with_that_error() -> None:
    closed: list[str] = []

    async def close() -> None:
        closed.append("database")

    async with serving(EchoServicer()) as first:
        settings = make_settings(listen=first.address)
        app = App(None, serving_parts(EchoServicer(), settings), {}, close=[close])
        with pytest.raises(RuntimeError, match="bind"):
            await serve(asyncio.Event(), app)
    assert closed == ["database"]
