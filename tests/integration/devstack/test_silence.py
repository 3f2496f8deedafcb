"""Programs that run and do not answer: they are started again, and it is said why."""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path

import grpc
import nats
import nats.errors
import pytest
from nats.js.api import StreamConfig

from devstack import checks, ports
from devstack import nats as embedded
from devstack.liveness import Patience
from devstack.processes import Process, Program
from devstack.state import State
from servicekit.broker import inbox_of
from support.polling import eventually
from support.small_disk import small_disk

WRITTEN = ("processes", "interventions")  # the supervisor writes them, each by a draft beside it
IMPATIENT = Patience(interval_seconds=0.05, silent_seconds=0.2, restarts_per_hour=2)
SLEEP = (sys.executable, "-c", "import time; time.sleep(600)")


async def _is_ready() -> bool:
    return True


def _read(path: Path) -> str:
    return path.read_text(encoding="utf-8")


async def test_one_that_does_not_answer_is_restarted_with_its_reason(state: State) -> None:
    deaf = True

    async def find_problem() -> str:
        return "/health: no answer" if deaf else ""

    process = Process(state, Program("child", SLEEP, _is_ready, find_problem=find_problem), IMPATIENT)
    await process.start()
    await process.wait_ready(20)
    first = process.pid
    await eventually(lambda: process.phase == "ready" and process.pid not in {first, None})
    deaf = False
    assert "child restarted, it had not answered for" in _read(process.log)
    assert "/health: no answer" in state.interventions()["child"]
    await process.stop(5)


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux has a device that is always full")
@pytest.mark.parametrize("how", ["silent", "dead"])
async def test_a_full_disk_does_not_prevent_a_restart(state: State, how: str) -> None:
    deaf = False

    async def find_problem() -> str:
        return "/health: no answer" if deaf else ""

    process = Process(state, Program("child", SLEEP, _is_ready, find_problem=find_problem), IMPATIENT)
    await process.start()
    await process.wait_ready(20)
    first = process.pid
    assert first is not None
    process.log.unlink()
    for path in (process.log, *(state.root / f".{name}.json.{os.getpid()}" for name in WRITTEN)):
        path.symlink_to("/dev/full")
    deaf = how == "silent"
    if how == "dead":
        os.kill(first, signal.SIGKILL)
    await eventually(lambda: process.phase == "ready" and process.pid not in {first, None})
    deaf = False
    await process.stop(5)


async def test_a_program_that_never_answers_is_left_alone_after_some_restarts(state: State) -> None:
    async def find_problem() -> str:
        return "/health: no answer"

    process = Process(state, Program("child", SLEEP, _is_ready, find_problem=find_problem), IMPATIENT)
    await process.start()
    await eventually(lambda: "left as it is" in state.interventions().get("child", ""), 60)
    assert process.restarts == IMPATIENT.restarts_per_hour
    assert process.phase == "ready"
    await process.stop(5)


async def test_one_that_answers_is_left_alone(state: State) -> None:
    asked = 0

    async def find_problem() -> str:
        nonlocal asked
        asked += 1
        return ""

    process = Process(state, Program("child", SLEEP, _is_ready, find_problem=find_problem), IMPATIENT)
    await process.start()
    await eventually(lambda: asked > 20)
    assert (process.restarts, state.interventions()) == (0, {})
    await process.stop(5)


@pytest.mark.parametrize(
    ("code", "is_silent"), [(grpc.StatusCode.RESOURCE_EXHAUSTED, False), (grpc.StatusCode.UNAVAILABLE, True)]
)
async def test_a_service_that_is_too_busy_answers(code: grpc.StatusCode, *, is_silent: bool) -> None:
    async def refuse(_: object, context: grpc.aio.ServicerContext) -> None:
        await context.abort(code, "not now")

    server = grpc.aio.server()
    handler = grpc.method_handlers_generic_handler(
        "grpc.health.v1.Health", {"Check": grpc.unary_unary_rpc_method_handler(refuse)}
    )
    server.add_generic_rpc_handlers((handler,))
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    assert bool(await checks.find_grpc_problem(f"127.0.0.1:{port}")) is is_silent
    await server.stop(0)
    assert "UNAVAILABLE" in await checks.find_grpc_problem(f"127.0.0.1:{port}")


async def test_a_broker_whose_disk_was_full_takes_messages_again_when_there_is_room(state: State) -> None:
    port, monitor, passwords = ports.find_free(), ports.find_free(), state.secrets()
    url = embedded.make_url(port, "instance", passwords["nats_instance"])

    async def publishes(*, create: bool = False) -> bool:
        client = None
        try:
            client = await nats.connect(
                url, allow_reconnect=False, connect_timeout=2, inbox_prefix=inbox_of("instance")
            )
            jetstream = client.jetstream(timeout=1)
            if create:
                await jetstream.add_stream(
                    StreamConfig(name="INSTANCE_EVENTS", subjects=["optaic.*.instance.v1.>"])
                )
            await jetstream.publish("optaic.default.instance.v1.created.7", b"x" * 200_000)
        except (nats.errors.Error, OSError):
            return False
        finally:
            if client is not None:
                await client.close()
        return True

    with small_disk(state.root / "nats", 8) as disk:
        program = embedded.make_program(state, port, monitor, passwords)
        patience = Patience(interval_seconds=0.2, silent_seconds=1, restarts_per_hour=5)
        process = Process(state, program, patience)
        await process.start()
        await process.wait_ready(20)
        try:
            assert await publishes(create=True)
            disk.fill()
            assert not await publishes()
            disk.grow(64)
            await eventually(publishes, 60)
            assert process.restarts > 0
            assert "no space left on device" in state.interventions()["nats"]
        finally:
            await process.stop(10)


@pytest.mark.parametrize(
    "reason", ["", "2026-01-01T00:00:00+00:00 restarted, it had not answered for 60 s: x"]
)
def test_interventions_are_kept_until_the_next_stack_starts(state: State, reason: str) -> None:
    if reason:
        state.note_intervention("nats", reason)
    assert state.interventions() == ({"nats": reason} if reason else {})
    state.forget_interventions()
    assert state.interventions() == {}
