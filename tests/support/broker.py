"""A real NATS server with JetStream, one for each test: it starts in a hundredth of a second."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import nats.js.errors
from nats.aio.client import Client
from nats.aio.subscription import Subscription

from devstack import launch, ports
from optaic.rules.events import STREAMS

_BINARY = Path(sys.prefix) / "bin" / "nats-server"
_START_SECONDS = 10.0


class NatsServer:
    """One server on one port; it may be killed and started again, on the same data."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._port = ports.find_free()
        self._process: subprocess.Popen[bytes] | None = None
        self.url = f"nats://127.0.0.1:{self._port}"

    def start(self) -> None:
        """Start, and return when it accepts connections."""
        arguments = ["--addr=127.0.0.1", f"--port={self._port}", "--jetstream", f"--store_dir={self._folder}"]
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

    def _accepts(self) -> bool:
        with socket.socket() as probe:
            return probe.connect_ex(("127.0.0.1", self._port)) == 0


@contextmanager
def nats_server() -> Iterator[NatsServer]:
    """Run a server with an empty store."""
    folder = Path(tempfile.mkdtemp(prefix="optaic-nats-"))
    server = NatsServer(folder)
    try:
        server.start()
        yield server
    finally:
        server.kill()
        shutil.rmtree(folder, ignore_errors=True)


async def ensure_streams(client: Client, *names: str) -> None:
    """Create the streams of services that a test does without; those that are there stay as they are."""
    for name in names:
        with suppress(nats.js.errors.BadRequestError):  # its owner has made it, with more settings
            await client.jetstream().add_stream(name=name, subjects=[*STREAMS[name]])


async def listen(client: Client, subject: str, **options: Any) -> Subscription:
    """Subscribe, and return when the server knows: what anybody publishes from now on is heard.

    The client's `flush` sends its ping past what still waits to be written, the subscription, so that its answer proves
    nothing. By then all of that is written, and a second ping follows it.
    """
    subscription = await client.subscribe(subject, **options)
    await client.flush()
    await client.flush()
    return subscription
