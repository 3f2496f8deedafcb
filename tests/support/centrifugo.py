"""A real Centrifugo of version 6 for tests: its program, a server, and a client that speaks its protocol."""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import functools
import json
import os
import shutil
import subprocess
import time
from collections import deque
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from devstack import checks, ports
from devstack.centrifugo import BINARY, find_binary, render_config
from optaic.rules.realtime import websocket_url
from servicekit.centrifugo import CentrifugoSettings
from support.polling import eventually
from support.scratch import server_folder

_VERSION = "6.9.1"
_MODULE = "github.com/centrifugal/centrifugo/v6"
_BUILD_SECONDS = 900
_RETRY_SECONDS = 3600
API_KEY = "api-key"
TOKEN_KEY = "token-key-of-at-least-32-characters"
ORIGIN = "http://127.0.0.1:*"


def centrifugo_binary() -> Path:
    """Return the program: the one that is named, on the PATH, or built before; else build it once. Skip the test if there is none."""
    named = os.environ.get(BINARY, "")
    found = find_binary(named)
    if found is not None:
        return found
    if named:
        pytest.fail(f"{BINARY}={named} is no program")
    if shutil.which("go") is None:
        pytest.skip(f"no Centrifugo: set {BINARY}, or install Go so that the tests can build it")
    built, problem = _build()
    if problem:
        pytest.skip(problem)
    return built


def find_centrifugo() -> Path | None:
    """Return the program if it is there already: named, on the PATH, or built before."""
    built = _cache() / "centrifugo"
    return find_binary(os.environ.get(BINARY, "")) or (built if built.exists() else None)


def _cache() -> Path:
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return cache / "optaic" / f"centrifugo-{_VERSION}"


@functools.cache
def _build() -> tuple[Path, str]:
    """Build the program unless it is there; return its path, and why it is not there. It is tried once in an hour."""
    folder = _cache()
    folder.mkdir(parents=True, exist_ok=True)
    built, draft, failed = folder / "centrifugo", folder / "draft", folder / "failed"
    with (folder / "lock").open("w") as lock:  # the processes of one session build it once
        fcntl.flock(lock, fcntl.LOCK_EX)
        if built.exists():
            return built, ""
        if failed.exists() and time.time() - failed.stat().st_mtime < _RETRY_SECONDS:
            return built, failed.read_text(encoding="utf-8")
        command = ("nice", "-n", "15", "go", "install", f"{_MODULE}@v{_VERSION}")
        environment = {**os.environ, "GOBIN": str(draft), "GOTOOLCHAIN": "local"}
        try:
            subprocess.run(
                command, env=environment, cwd=folder, check=True, capture_output=True, timeout=_BUILD_SECONDS
            )
        except subprocess.CalledProcessError as error:
            failed.write_text(f"Centrifugo cannot be built: {error.stderr.decode()[-500:]}", encoding="utf-8")
        except subprocess.TimeoutExpired:
            problem = (
                f"Centrifugo was not built within {_BUILD_SECONDS} s; a later session goes on from there"
            )
            failed.write_text(problem, encoding="utf-8")
        else:
            (draft / "centrifugo").rename(built)
            return built, ""
        return built, failed.read_text(encoding="utf-8")


@dataclass
class CentrifugoServer:
    """One server on a port of its own, which the test may kill and start again."""

    folder: Path
    port: int
    process: asyncio.subprocess.Process | None = None

    @property
    def url(self) -> str:
        """Return the base URL of its API."""
        return f"http://{ports.HOST}:{self.port}"

    @property
    def settings(self) -> dict[str, Any]:
        """Return the settings of a service that publishes here."""
        return {
            "centrifugo_url": self.url,
            "centrifugo_api_key": API_KEY,
            "centrifugo_token_key": TOKEN_KEY,
        }

    async def start(self) -> None:
        """Start it, and wait until it answers. It remembers nothing of an earlier life."""
        config = self.folder / "centrifugo.json"
        config.write_text(render_config(self.port, API_KEY, TOKEN_KEY, [ORIGIN]))
        with (self.folder / "log").open("ab") as log:
            self.process = await asyncio.create_subprocess_exec(
                str(centrifugo_binary()), "--config", str(config), stdout=log, stderr=log
            )
        await eventually(lambda: checks.http_answers(f"{ports.HOST}:{self.port}", "/health"))

    async def kill(self) -> None:
        """End it without a farewell."""
        process, self.process = self.process, None
        if process is not None:
            process.kill()
            await process.wait()

    async def history(self, channel: str) -> list[dict[str, Any]]:
        """Return the data of what a channel keeps, oldest first."""
        body = {"channel": channel, "limit": -1}
        async with (
            aiohttp.ClientSession(headers={"X-API-Key": API_KEY}) as session,
            session.post(f"{self.url}/api/history", json=body) as response,
        ):
            answer = await response.json()
        return [each["data"] for each in answer["result"]["publications"]]

    def connect(self, token: str) -> contextlib.AbstractAsyncContextManager[CentrifugoClient]:
        """Connect a client with a token, as `connected_to` does."""
        return connected_to(websocket_url(self.url), token)


class CentrifugoRefusedError(Exception):
    """The server refused a command, or ended the connection; `code` is that of Centrifugo."""

    def __init__(self, code: int, message: str) -> None:
        super().__init__(f"{code}: {message}")
        self.code = code


@dataclass
class CentrifugoClient:
    """The JSON protocol of Centrifugo over one WebSocket."""

    socket: aiohttp.ClientWebSocketResponse
    pushes: deque[dict[str, Any]] = field(default_factory=deque)
    _number: int = 0

    async def subscribe(self, channel: str, token: str, **position: Any) -> dict[str, Any]:
        """Subscribe, with `offset` and `epoch` after what was had before; return the server's answer.

        Raises:
            CentrifugoRefusedError: The server does not permit it.
        """
        recover = {"recover": True, **position} if position else {}
        return await self.call("subscribe", {"channel": channel, "token": token, **recover})

    async def call(self, method: str, body: dict[str, Any]) -> dict[str, Any]:
        """Return the server's answer to a command.

        Raises:
            CentrifugoRefusedError: The server refuses.
        """
        self._number += 1
        await self.socket.send_str(json.dumps({"id": self._number, method: body}))
        while True:
            for message in await self._receive():
                if message.get("id") != self._number:
                    self.pushes.append(message["push"])
                elif "error" in message:
                    raise CentrifugoRefusedError(message["error"]["code"], message["error"]["message"])
                else:
                    return dict(message.get(method, {}))

    async def next_push(self) -> dict[str, Any]:
        """Return the next message of the server, whatever it is.

        Raises:
            CentrifugoRefusedError: The server has ended the connection.
        """
        while not self.pushes:
            self.pushes.extend(message["push"] for message in await self._receive())
        return self.pushes.popleft()

    async def next_data(self) -> dict[str, Any]:
        """Return what the next publication carries."""
        while True:
            push = await self.next_push()
            if "pub" in push:
                return dict(push["pub"]["data"])

    async def _receive(self) -> list[dict[str, Any]]:
        message = await self.socket.receive(timeout=30)
        if message.type is not aiohttp.WSMsgType.TEXT:
            raise CentrifugoRefusedError(self.socket.close_code or 0, str(message.extra))
        found = [json.loads(line) for line in message.data.splitlines() if line]
        for ping in (each for each in found if not each):
            await self.socket.send_str(json.dumps(ping))
        return [each for each in found if each]


@contextlib.asynccontextmanager
async def connected_to(url: str, token: str) -> AsyncIterator[CentrifugoClient]:
    """Yield a client that is connected to a WebSocket with a token.

    Raises:
        CentrifugoRefusedError: The server does not believe the token.
    """
    async with aiohttp.ClientSession() as session, session.ws_connect(url) as socket:
        client = CentrifugoClient(socket)
        await client.call("connect", {"token": token})
        yield client


@contextlib.asynccontextmanager
async def centrifugo_server() -> AsyncIterator[CentrifugoServer]:
    """Yield a running server of the test's own: what channels remember would disturb the next test."""
    with server_folder() as folder:
        server = CentrifugoServer(folder, ports.find_free())
        try:
            await server.start()
            yield server
        finally:
            await server.kill()


def settings_of(url: str, key: str = API_KEY, **settings: Any) -> CentrifugoSettings:
    """Return the settings of a publisher; a busy machine is no server that hangs."""
    patient = {"centrifugo_timeout_seconds": 30, **settings}
    return CentrifugoSettings(centrifugo_url=url, centrifugo_api_key=key, **patient)
