"""Requests that were once answered as faults of the service; the campaign of test_fuzz.py finds more of their kinds."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator
from typing import Any

import grpc
import pytest

from integration.servicekit import echo
from integration.servicekit.sample import make_settings
from servicekit.status import from_rpc_error
from support.identities import caller, tokens_file
from support.logs import logged_by

_HEALTH, _REFLECTION = "/grpc.health.v1.Health", "/grpc.reflection.v1alpha.ServerReflection"
_NO_MESSAGE = b"\x0a\xff"
MODES = ("development", "tokens")


@contextlib.asynccontextmanager
async def serving(auth: str) -> AsyncIterator[Any]:
    settings = make_settings(auth=auth, tokens_file=tokens_file(), shutdown_grace_seconds=0.1)
    async with (
        echo.serving(echo.EchoServicer(), settings=settings) as server,
        echo.bare_channel(server.address) as channel,
    ):
        yield channel


async def refusal(call: Any) -> tuple[str, str]:
    """Return the code and the reason of a refused call."""
    with pytest.raises(grpc.aio.AioRpcError) as error:
        await call
    meaning = from_rpc_error(error.value)
    return meaning.code, meaning.reason


@pytest.mark.parametrize("auth", MODES)
async def test_a_question_about_health_that_is_no_message_is_refused_with_a_reason(auth: str) -> None:
    with logged_by("sample-service") as log:
        async with serving(auth) as channel:
            check = channel.unary_unary(f"{_HEALTH}/Check")(_NO_MESSAGE, metadata=caller("viewer"))
            assert await refusal(check) == ("INVALID_ARGUMENT", "MALFORMED_REQUEST")
            watch = channel.unary_stream(f"{_HEALTH}/Watch")(_NO_MESSAGE, metadata=caller("viewer"))
            assert await refusal(watch.read()) == ("INVALID_ARGUMENT", "MALFORMED_REQUEST")
    assert "Traceback" not in log.getvalue()


@pytest.mark.parametrize("auth", MODES)
async def test_a_question_to_reflection_that_is_no_message_is_refused_with_a_reason(auth: str) -> None:
    with logged_by("sample-service") as log:
        async with serving(auth) as channel:
            path = f"{_REFLECTION}/ServerReflectionInfo"
            stream = channel.stream_stream(path)(metadata=caller("viewer"))
            await stream.write(_NO_MESSAGE)
            assert await refusal(stream.read()) == ("INVALID_ARGUMENT", "MALFORMED_REQUEST")
    assert "Traceback" not in log.getvalue()


@pytest.mark.parametrize("auth", MODES)
async def test_a_long_question_about_health_is_refused_unread(auth: str) -> None:
    async with serving(auth) as channel:
        check = channel.unary_unary(f"{_HEALTH}/Check")(
            b"\x0a\xc0\xc4\x07" + b"x" * 123_456, metadata=caller("viewer")
        )
        assert await refusal(check) == ("RESOURCE_EXHAUSTED", "REQUEST_TOO_LARGE")


@pytest.mark.parametrize("auth", MODES)
async def test_a_method_of_health_that_nobody_serves_is_no_fault(auth: str) -> None:
    with logged_by("sample-service") as log:
        async with serving(auth) as channel:
            call = channel.unary_unary(f"{_HEALTH}/List")(b"", metadata=caller("viewer"))
            assert await refusal(call) == ("UNIMPLEMENTED", "UNIMPLEMENTED")
    assert "Traceback" not in log.getvalue()
