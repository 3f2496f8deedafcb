"""A subscriber of Centrifugo follows the whole demo and sees what a watcher sees: each change of each instance, once, in order."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import os
from collections import defaultdict
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

import devstack
from optaic.client import AsyncClient, word
from optaic.rules.realtime import websocket_url
from support.campaigns import IS_FULL
from support.centrifugo import CentrifugoRefusedError, centrifugo_binary, connected_to
from support.demo import start_demo
from support.polling import PATIENCE, eventually

pytestmark = [
    pytest.mark.e2e,
    pytest.mark.faults,
    pytest.mark.skipif(not IS_FULL, reason="it runs the whole demo: OPTAIC_FAULTS=full"),
]
Seen = dict[str, list[tuple[int, str]]]


@dataclass
class _Followers:
    """A watcher of all statuses, and for each instance that it hears of a subscriber of its channel."""

    client: AsyncClient
    url: str
    watched: Seen = field(default_factory=lambda: defaultdict(list))
    received: defaultdict[str, list[dict[str, Any]]] = field(default_factory=lambda: defaultdict(list))
    subscribers: list[asyncio.Task[None]] = field(default_factory=list)

    async def watch(self) -> None:
        """Watch from the first change on."""
        async for change in self.client.status.watch(from_revision=0):
            if not change.HasField("instance_status"):
                continue
            status = change.instance_status
            if status.instance_id not in self.watched:
                self.subscribers.append(asyncio.create_task(self._subscribe(status.instance_id)))
            self.watched[status.instance_id].append((status.revision, word(status, "status").lower()))

    async def _subscribe(self, instance_id: str) -> None:
        """Read what the channel has kept, and all that comes until the server ends."""
        tokens = await self.client.status.realtime_token([instance_id])
        subscription = tokens.subscriptions[0]
        async with connected_to(self.url, tokens.connection_token) as client:
            begun = await client.subscribe(subscription.channel, subscription.token, offset=0, epoch="")
            assert begun["recovered"]
            self.received[instance_id] += [each["data"] for each in begun.get("publications", [])]
            with contextlib.suppress(CentrifugoRefusedError):  # the stack is stopped
                while True:
                    self.received[instance_id].append(await client.next_data())


def _start(folder: Path) -> Any:
    live = {"OPTAIC_CENTRIFUGO": "embedded", "OPTAIC_CENTRIFUGO_BINARY": str(centrifugo_binary())}
    # The followers renew no tokens.
    return start_demo(folder, OPTAIC_REALTIME_TOKEN_SECONDS="3600", **live)


async def test_a_subscriber_of_the_demo_sees_what_a_watcher_sees(tmp_path: Path) -> None:
    demo = await asyncio.to_thread(_start, tmp_path)
    output = asyncio.create_task(asyncio.to_thread(demo.communicate, timeout=900))
    try:
        state = devstack.State(tmp_path / ".state" / "demo")
        endpoints = await eventually(lambda: devstack.Endpoints.load(state), PATIENCE)
        assert endpoints is not None
        addresses = {
            f"{each}_address": getattr(endpoints, each) for each in ("instance", "run", "lineage", "status")
        }
        async with AsyncClient.connect(**addresses, token="development") as client:
            followers = _Followers(client, websocket_url(endpoints.centrifugo))
            watching = asyncio.create_task(followers.watch())
            printed, _ = await output
            watching.cancel()
            await asyncio.wait([watching, *followers.subscribers], timeout=PATIENCE)
    finally:
        if demo.poll() is None:
            os.killpg(demo.pid, 2)
            await output
    assert demo.returncode == 0, printed
    for each in followers.subscribers:
        assert each.done()
        assert each.exception() is None
    assert len(followers.watched) >= 10, "the demo has ten instances"
    for instance_id, watched in followers.watched.items():
        received = followers.received[instance_id]
        assert [(each["revision"], each["status"]) for each in received] == watched
        for before, after in itertools.pairwise(received):
            assert after["previous_revision"] == before["revision"]
        assert watched[-1][1] == "ready"
    print({"instances": len(followers.watched), "changes": sum(map(len, followers.watched.values()))})  # noqa: T201 - a measurement
