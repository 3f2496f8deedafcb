"""A real NATS server with JetStream: an account of it for each test, or for tests that kill it one of their own."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import ExitStack, asynccontextmanager, contextmanager, suppress
from pathlib import Path
from typing import Any

import nats
import nats.js.errors
from nats.aio.client import Client
from nats.aio.subscription import Subscription

from devstack import launch, ports
from optaic.rules.events import STREAMS
from support.scratch import server_folder

_BINARY = Path(sys.prefix) / "bin" / "nats-server"
_START_SECONDS = 10.0
_ACCOUNTS = 50  # what a server keeps for all tests that it has served stays small

_CONNECT_SECONDS = 20  # a busy machine takes its time


@asynccontextmanager
async def connected(url: str) -> AsyncIterator[Client]:
    """Yield a client; it is closed whatever happens, so that no later test is blamed for what it left open."""
    client = await nats.connect(url, connect_timeout=_CONNECT_SECONDS)
    try:
        yield client
    finally:
        await client.close()


class NatsServer:
    """One server on one port; it may be killed and started again, on the same data."""

    def __init__(self, folder: Path, *arguments: str) -> None:
        self._folder = folder
        self._arguments = arguments
        self._port = ports.find_free()
        self._process: subprocess.Popen[bytes] | None = None
        self.url = f"nats://127.0.0.1:{self._port}"

    def start(self) -> None:
        """Start, and return when it accepts connections."""
        arguments = [
            *("--addr=127.0.0.1", f"--port={self._port}", "--jetstream", f"--store_dir={self._folder}"),
            *self._arguments,
        ]
        ending = [f"--parent={os.getpid()}", "--death-signal=9", "--leave-root=no", "--"]
        with (self._folder / "log").open("ab") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-I", "-S", launch.__file__, *ending, str(_BINARY), *arguments],
                stdout=log,
                stderr=log,
            )
        limit = time.monotonic() + _START_SECONDS
        while not self._accepts():
            if self._process.poll() is not None or time.monotonic() > limit:
                raise RuntimeError((self._folder / "log").read_text())
            time.sleep(0.005)

    def kill(self) -> None:
        """End it as a crash would."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None

    def lose_storage(self) -> None:
        """Crash, lose the disk, and come back empty."""
        self.kill()
        shutil.rmtree(self._folder / "jetstream")
        self.start()

    @property
    def is_running(self) -> bool:
        """Return whether it has been started and has not ended since."""
        return self._process is not None and self._process.poll() is None

    def _accepts(self) -> bool:
        with socket.socket() as probe:
            return probe.connect_ex(("127.0.0.1", self._port)) == 0


@contextmanager
def nats_server() -> Iterator[NatsServer]:
    """Run a server with an empty store."""
    with server_folder() as folder:
        server = NatsServer(folder)
        try:
            server.start()
            yield server
        finally:
            server.kill()


class NatsAccounts:
    """Empty brokers that no test has used: accounts, which share neither subjects nor streams, of a common server."""

    def __init__(self) -> None:
        self._servers: list[tuple[NatsServer, ExitStack]] = []
        self._unused: list[str] = []

    def take(self) -> str:
        """Return the URL of another one; a server that somebody has killed fails no later test."""
        if not self._unused or not self._servers[-1][0].is_running:
            self._start()
        return self._unused.pop()

    def _start(self) -> None:
        """Start the next server. The one before goes on: fixtures of a whole module may have accounts of it."""
        for _, stack in self._servers[:-1]:
            stack.close()  # with all that is stored in it
        stack = ExitStack()
        server, self._unused = stack.enter_context(_accounts())
        self._servers = [*self._servers[-1:], (server, stack)]

    def close(self) -> None:
        """End the servers."""
        for _, stack in self._servers:
            stack.close()


@contextmanager
def _accounts() -> Iterator[tuple[NatsServer, list[str]]]:
    names = [f"test{number}" for number in range(_ACCOUNTS)]
    accounts = {
        name: {"jetstream": "enabled", "users": [{"user": name, "password": "account"}]} for name in names
    }
    with server_folder() as folder:
        config = folder / "nats.conf"
        config.write_text(f"accounts: {json.dumps(accounts)}", encoding="utf-8")
        server = NatsServer(folder, f"--config={config}")
        try:
            server.start()
            yield server, [server.url.replace("//", f"//{name}:account@") for name in names]
        finally:
            server.kill()


async def ensure_streams(client: Client, *names: str) -> None:
    """Create the streams of services that a test does without; those that are there stay as they are."""
    for name in names:
        with suppress(nats.js.errors.BadRequestError):  # its owner has made it, with more settings
            await client.jetstream().add_stream(name=name, subjects=[*STREAMS[name]])


async def listen(client: Client, subject: str, **options: Any) -> Subscription:
    """Subscribe, and return when the server knows: every later message is received.

    The client's `flush` sends its ping past what still waits to be written, the subscription, so that its answer proves
    nothing. By then all of that is written, and a second ping follows it.
    """
    subscription = await client.subscribe(subject, **options)
    await client.flush()
    await client.flush()
    return subscription
