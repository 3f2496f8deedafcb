"""A stand-in for Centrifugo's HTTP API; the conformance tests compare it with the real one."""

from __future__ import annotations

import contextlib
from collections import defaultdict
from collections.abc import AsyncIterator
from typing import Any

from aiohttp import web

from optaic.rules.realtime import NAMESPACES
from support.centrifugo import API_KEY

_UNKNOWN_CHANNEL = {"code": 102, "message": "unknown channel"}
_KEPT = 100


class FakeCentrifugo:
    """Channels in memory; it counts the calls."""

    def __init__(self) -> None:
        self.url = ""
        self.batches: list[int] = []  # how many commands each had
        self.broken = 0  # so many calls fail
        self.failed = 0  # batches that failed
        self._channels = defaultdict[str, list[dict[str, Any]]](list)
        self._versions: dict[str, int] = {}
        self._keys = set[str]()

    @contextlib.asynccontextmanager
    async def serve(self) -> AsyncIterator[FakeCentrifugo]:
        """Serve on a free port."""
        app = web.Application()
        app.add_routes([web.post("/api/batch", self._batch), web.post("/api/info", self._info)])
        runner = web.AppRunner(app)
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        self.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
        try:
            yield self
        finally:
            await runner.cleanup()

    async def history(self, channel: str) -> list[dict[str, Any]]:
        """Return the data of what a channel keeps, oldest first."""
        return self._channels[channel][-_KEPT:]

    async def _info(self, request: web.Request) -> web.Response:
        self._check(request)
        return web.json_response({"result": {"nodes": []}})

    async def _batch(self, request: web.Request) -> web.Response:
        self.failed += self.broken > 0
        self._check(request)
        commands = (await request.json())["commands"]
        self.batches.append(len(commands))
        return web.json_response({"replies": [self._reply(command) for command in commands]})

    def _check(self, request: web.Request) -> None:
        if request.headers.get("X-API-Key") != API_KEY:
            raise web.HTTPUnauthorized
        if self.broken:
            self.broken -= 1
            raise web.HTTPServiceUnavailable

    def _reply(self, command: dict[str, Any]) -> dict[str, Any]:
        if "publish" in command:
            error = self._publish(command["publish"]["channel"], command["publish"])
            return {"error": error} if error else {"publish": {}}
        body = command["broadcast"]
        errors = [self._publish(channel, body) for channel in body["channels"]]
        return {"broadcast": {"responses": [{"error": each} if each else {"result": {}} for each in errors]}}

    def _publish(self, channel: str, body: dict[str, Any]) -> dict[str, Any] | None:
        if channel.partition(":")[0] not in NAMESPACES:
            return _UNKNOWN_CHANNEL
        version = body.get("version", 0)
        key = body.get("idempotency_key", "")
        if (version and version <= self._versions.get(channel, 0)) or (key and (channel + key) in self._keys):
            return None
        self._versions[channel] = version
        self._keys.add(channel + key)
        self._channels[channel].append(body["data"])
        return None
