"""The example page shows statuses live, in Node and in a browser, and says where it missed some; its tokens are renewed."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from devstack.postgres import Postgres
from optaic.cli.output import message_dict
from optaic.rules.realtime import websocket_url
from support.live_page import Page, browser, find_browser, following, install
from support.polling import eventually
from support.realtime import World, realtime_world, signed

_NAME = "prices"


@pytest.fixture(scope="module")
def example(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return install(tmp_path_factory.mktemp("example"))


@pytest_asyncio.fixture
async def world(postgres_server: Postgres, nats_url: str) -> AsyncIterator[World]:
    del postgres_server
    async with realtime_world(nats_url) as running:
        yield running


async def _tokens(world: World, *others: str) -> dict[str, Any]:
    """Return what `optaic status token -o json --show-tokens` prints; the instances have the same name."""
    made = await world.tokens(instance_ids=[world.instance_id, *others])
    content: dict[str, Any] = {"url": websocket_url(world.server.url), **message_dict(made)}
    for each in content["subscriptions"]:
        each["instance_name"] = _NAME
    return content


async def test_the_example_follows_statuses_in_node(world: World, example: Path) -> None:
    async def tokens() -> dict[str, Any]:
        content = await _tokens(world)
        if page.loads == 1:  # those that it begins with expire soon
            soon = int(datetime.now(UTC).timestamp()) + 3
            content["connection_token"] = signed(exp=soon)
            for each in content["subscriptions"]:
                each["token"] = signed(exp=soon, channel=each["channel"])
        return content

    page = Page(example, tokens)
    async with page.serve(), following(page) as lines:

        async def told() -> str:
            line = json.loads(await asyncio.wait_for(lines.readline(), 60))
            assert line["name"] == _NAME
            return str(line["message"]["status"]) if line["message"] else "missed"

        assert await told() == "not_initialized", "what the channel keeps"
        await world.change(1, "RUNNING", 1)
        assert await told() == "running"
        # The connection's token and that of the one subscription are renewed, and messages come as before.
        await eventually(lambda: page.loads >= 3)
        await world.change(2, "READY", 1)
        assert await told() == "ready"
        await world.server.kill()
        await world.change(3, "RUNNING", 2)
        await world.server.start()
        assert await told() == "missed", "the epoch is another one"
        await world.change(4, "READY", 2)
        while (status := await told()) != "ready":
            assert status == "running", "it is told only if the example was there first"


async def test_the_example_shows_statuses_in_a_browser(world: World, example: Path, tmp_path: Path) -> None:
    program = find_browser()
    other = await world.create()
    made = await _tokens(world, other)

    async def tokens() -> dict[str, Any]:
        return made

    async with (
        Page(example, tokens).serve() as page,
        browser(program, tmp_path, f"{page.url}/index.html") as shown,
    ):

        async def shows(connection: str, *statuses: str) -> bool:
            text = await shown.evaluate("document.body?.innerText")
            # The instances have the same name, and come in any order.
            begin, *told = " ".join(str(text).split()).split(f" {_NAME} ")
            return begin == f"Live statuses {connection}" and sorted(told) == sorted(statuses)

        await eventually(lambda: shows("connected", "not_initialized", "not_initialized"))
        await world.change(1, "RUNNING", 1)
        await eventually(lambda: shows("connected", "running", "not_initialized"))
        await world.change(2, "READY", 1)
        await world.delete(other)
        await eventually(lambda: shows("connected", "ready", "deleted"))
        await world.server.kill()
        await eventually(lambda: shows("connecting", "ready", "deleted"))
        await world.server.start()
        await eventually(lambda: shows("connected", "read anew", "read anew"))
