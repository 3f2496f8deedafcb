"""The stack starts Centrifugo where it is asked to, and says what is missing where it cannot."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from devstack import Settings, Stack, StartError
from devstack.processes import Process
from devstack.state import State
from servicekit.centrifugo_adapter import CentrifugoPublisher
from servicekit.outlet import PublisherAwayError
from support.centrifugo import centrifugo_binary, settings_of


async def test_a_stack_without_the_program_does_not_start(tmp_path: Path) -> None:
    settings = Settings(centrifugo="embedded", centrifugo_binary=str(tmp_path / "nothing"))
    stack = Stack(tmp_path / "state", settings)
    with pytest.raises(StartError, match=r"nothing is no program: install Centrifugo, version 6"):
        await stack.up()
    assert stack.processes == {}


async def test_the_stack_s_centrifugo_answers_to_its_own_key_only(tmp_path: Path) -> None:
    binary = await asyncio.to_thread(centrifugo_binary)
    settings = Settings(centrifugo="embedded", centrifugo_binary=str(binary))
    stack = Stack(tmp_path / "state", settings)
    stack.state = State(tmp_path / "state")
    stack.state.create()
    stack._prepare()
    try:
        await stack._start_centrifugo()
        (process,) = stack.processes.values()
        assert isinstance(process, Process)
        key = stack.state.secrets()["centrifugo_api"]
        for given, is_right in ((key, True), ("another", False)):
            publisher = CentrifugoPublisher(settings_of(stack.endpoints.centrifugo, given))
            try:
                if is_right:
                    await publisher.ping()
                else:
                    with pytest.raises(PublisherAwayError, match="401"):
                        await publisher.ping()
            finally:
                await publisher.close()
        assert stack.endpoints.centrifugo.startswith("http://127.0.0.1:")
        assert (stack.state.root / "centrifugo.json").stat().st_mode & 0o777 == 0o600
    finally:
        for process in stack.processes.values():
            await process.stop(5)
