"""Programs small enough to see what the supervisor does to them."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from devstack import leftovers
from devstack.state import State

SERVICE = """
import asyncio, os, signal
import grpc
from grpc_health.v1 import health, health_pb2, health_pb2_grpc

async def main():
    server = grpc.aio.server()
    servicer = health.aio.HealthServicer()
    health_pb2_grpc.add_HealthServicer_to_server(servicer, server)
    server.add_insecure_port(os.environ["OPTAIC_LISTEN"])
    await server.start()
    await servicer.set("", health_pb2.HealthCheckResponse.SERVING)
    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    await stop.wait()
    await server.stop(1)

asyncio.run(main())
"""
WORKER = """
import base64, os, subprocess, sys, time, urllib.request
subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"], start_new_session=True)  # must not survive
url = os.environ["OPTAIC_PREFECT_API_URL"] + "/work_pools/optaic/get_scheduled_flow_runs"
login = base64.b64encode(os.environ["OPTAIC_PREFECT_AUTH_STRING"].encode()).decode()
headers = {"content-type": "application/json", "authorization": "Basic " + login}
request = urllib.request.Request(url, data=b"{}", headers=headers)
while True:
    try:
        urllib.request.urlopen(request, timeout=5).read()
    except OSError:
        pass
    time.sleep(0.2)
"""


@pytest.fixture
def state(tmp_path: Path) -> Iterator[State]:
    state = State(tmp_path / "state")
    state.create()
    yield state
    assert leftovers.end(state.root, grace=0) == 0, "something was left running"


@pytest.fixture
def standins(tmp_path: Path) -> Path:
    """A folder that, first on PYTHONPATH, replaces the services and the worker."""
    folder = tmp_path / "standins"
    folder.mkdir()
    for name in ("instance", "run", "lineage", "status"):
        (folder / f"{name}_service.py").write_text(SERVICE)
    (folder / "worker.py").write_text(WORKER)
    return folder
