"""The stack starts SeaweedFS where it is asked to; what was stored is there again after the next start."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from devstack import Settings, Stack, checks, seaweedfs
from devstack.report import read_status
from devstack.state import State
from optaic import storage
from optaic.plugins import StoreUnavailable
from support.object_store import installed, needs_server

pytestmark = needs_server
URI = "s3://optaic/data/acme/instance/refresh/data/file"


@contextlib.asynccontextmanager
async def _running(root: Path) -> AsyncIterator[Stack]:
    """Yield a stack of which the object store runs, and nothing else."""
    stack = Stack(root, Settings(object_store="seaweedfs", tenants=("default", "acme")))
    stack.state = State(root)
    stack.state.create()
    stack._prepare()
    try:
        await stack._start_object_store()
        yield stack
    finally:
        await stack._stop_all()


def _sockets(stack: Stack) -> list[Path]:
    """Return the sockets that the server has made in the folder of all users."""
    ports = [str(port) for name, port in stack._ports.items() if name in seaweedfs.PORTS]
    assert len(ports) == len(seaweedfs.PORTS)
    everybodys = Path("/tmp")  # noqa: S108 - the server's own choice
    return [path for path in everybodys.glob("seaweedfs-*.sock") if path.stem.rpartition("-")[2] in ports]


def _access(stack: Stack, tenant: str) -> storage.Access:
    return storage.Access.from_environment(
        {**stack.endpoints.s3_credentials(tenant), "OPTAIC_S3_PATIENCE_SECONDS": "20"}
    )


async def test_data_stays_and_a_credential_reaches_its_own_tenant(tmp_path: Path) -> None:
    root = tmp_path / "state"
    async with _running(root) as stack:
        (process,) = stack.processes.values()
        host = stack.endpoints.s3_endpoint.partition("//")[2]
        assert await checks.http_answers(host, "/healthz")
        assert await asyncio.to_thread(_sockets, stack) != []
        with installed(_access(stack, "acme")):
            await asyncio.to_thread(storage.write, URI, b"kept")
        with installed(_access(stack, "default")), pytest.raises(StoreUnavailable):
            await asyncio.to_thread(storage.read, URI)
        for name in ("seaweedfs.json", "stack.json"):
            assert (root / name).stat().st_mode & 0o777 == 0o600, name
        log, password = process.log.read_text(), stack.endpoints.s3_logins["acme"].partition(":")[2]
        assert password not in log
        assert password not in " ".join(process.program.argv)
    assert not await checks.http_answers(host, "/healthz")
    assert await asyncio.to_thread(_sockets, stack) == []
    async with _running(root) as stack:
        assert stack.endpoints.s3_endpoint.endswith(host), "it keeps its ports"
        with installed(_access(stack, "acme")):
            assert await asyncio.to_thread(storage.read, URI) == b"kept"
        assert (await read_status(stack.state))["phase"] == "stopped", "no supervisor runs"
