"""A whole stack whose worker belongs to the test: it is held at moments of a run, killed there, and started again.

The worker reaches MLflow through a proxy and Evidently through a link, which tests take away and bring back.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import shutil
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import devstack
from devstack import checks, ports, programs
from optaic.instance.v1 import instance_pb2
from support.killed_runs import KillableProgram
from support.polling import PATIENCE, eventually
from support.processes import is_running, list_descendants
from support.run_moments import PORT
from support.stack import RunningStack, stack_environment

# Much shorter than in production, so that a campaign ends.
_SHORT = {
    "OPTAIC_LEASE_SECONDS": "8",
    "OPTAIC_HEARTBEAT_SECONDS": "1",
    "OPTAIC_OBSERVE_INTERVAL_SECONDS": "1",
    "OPTAIC_SWEEP_INTERVAL_SECONDS": "2",
}
# Seconds, of the worker for MLflow and Evidently: on a busy machine too, a delivery within a run reaches each of its steps.
_PATIENCE_OF_RUNS, _TIMEOUT_OF_CALLS = "30", "8"
LOG_BYTES = 1_000_000


@dataclass
class MortalWorker:
    """The stack, the worker, and what the tests of a session have made there."""

    stack: RunningStack
    worker: KillableProgram
    folder: Path
    gate_port: int
    mlflow_port: int
    made: dict[str, instance_pb2.Instance] = field(default_factory=dict)

    @property
    def spool(self) -> Path:
        """The folder of what runs owe."""
        return self.folder / "telemetry"

    @property
    def unsent(self) -> Path:
        """The folder of lines of logs that Prefect does not have yet."""
        return self.folder / "output" / "unsent-default"

    @property
    def evidently(self) -> Path:
        """The real workspace of Evidently."""
        return Path(self.stack.endpoints.evidently_workspace)

    @property
    def link(self) -> Path:
        """The workspace as the worker knows it."""
        return self.folder / "workspace"

    def restart(self) -> None:
        """Start the worker after its death."""
        self.worker.start()

    async def kill(self) -> list[int]:
        """Kill the worker, alone; return the processes that it had started, once they have ended."""
        started = [pid for _, pid in list_descendants(self.worker.pid)]
        await asyncio.to_thread(self.worker.kill)
        await eventually(
            lambda: not any(map(is_running, started)), PATIENCE, "processes outlive their worker"
        )
        return started


@contextmanager
def running_mortal_worker(folder: Path) -> Iterator[MortalWorker]:
    """Start the stack and the worker; stop both at the end."""
    with _stack_without_worker(folder / "state") as (stack, environment):
        gate_port, mlflow_port = ports.find_free(), ports.find_free()
        state = devstack.State(stack.settings.root)
        own = programs.make_worker("worker", state, stack.settings, stack.endpoints).environment
        worker = KillableProgram(
            ["-m", "support.worker_with_moments"],
            {
                **environment,
                **own,
                "OPTAIC_SOURCE_ROOTS": environment["OPTAIC_SOURCE_ROOTS"],
                "OPTAIC_MLFLOW_URL": f"http://127.0.0.1:{mlflow_port}",
                "OPTAIC_EVIDENTLY_WORKSPACE": str(folder / "workspace"),
                "OPTAIC_TELEMETRY_FOLDER": str(folder / "telemetry"),
                "OPTAIC_RUN_OUTPUT_FOLDER": str(folder / "output"),
                "OPTAIC_TELEMETRY_PATIENCE_SECONDS": _PATIENCE_OF_RUNS,
                "OPTAIC_MLFLOW_TIMEOUT_SECONDS": _TIMEOUT_OF_CALLS,
                "OPTAIC_EVIDENTLY_TIMEOUT_SECONDS": _TIMEOUT_OF_CALLS,
                "OPTAIC_RUN_LOG_BYTES": str(LOG_BYTES),
                "OPTAIC_CONCURRENCY": "8",
                "OPTAIC_WORKER_GRACE_SECONDS": "0",
                PORT: str(gate_port),
                "OPTAIC_CHILD_ENVIRONMENT": json.dumps([PORT]),
            },
            folder / "worker.log",
        )
        mortal = MortalWorker(stack, worker, folder, gate_port, mlflow_port)
        mortal.link.symlink_to(mortal.evidently)
        try:
            worker.start()
            yield mortal
        finally:
            worker.end()


@contextmanager
def _stack_without_worker(state: Path) -> Iterator[tuple[RunningStack, dict[str, str]]]:
    environment = {**stack_environment(state), **_SHORT}
    settings = devstack.Settings(state=state)
    state.mkdir(parents=True)
    with (state / "supervisor.log").open("wb") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "support.stack_without_worker"],
            env={**os.environ, **environment},
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
    try:
        asyncio.run(_wait_until_ready(settings, process))
        endpoints = devstack.Endpoints.load(devstack.State(settings.root))
        assert endpoints is not None
        yield RunningStack(settings, endpoints), environment
    finally:
        devstack.down(settings)
        process.wait(60)


async def _wait_until_ready(settings: devstack.Settings, process: subprocess.Popen[bytes]) -> None:
    state = devstack.State(settings.root)

    def is_ready() -> bool:
        assert process.poll() is None, (settings.root / "supervisor.log").read_text()[-3000:]
        supervisor = state.supervisor()
        return supervisor is not None and supervisor["phase"] == "ready"

    await eventually(is_ready, PATIENCE)
    endpoints = devstack.Endpoints.load(state)
    assert endpoints is not None
    address = endpoints.mlflow.partition("//")[2]
    await eventually(lambda: checks.http_answers(address, "/health"), PATIENCE)


@asynccontextmanager
async def silent_workspace(mortal: MortalWorker) -> AsyncIterator[None]:
    """Let every access of the worker to Evidently's projects hang, as on a file server that is gone."""
    hanging = mortal.folder / "hanging"
    for project in mortal.evidently.iterdir():
        (hanging / project.name).mkdir(parents=True)
        os.mkfifo(hanging / project.name / "metadata.json")
    move_link(mortal, hanging)
    try:
        yield
    finally:
        move_link(mortal, mortal.evidently)
        for pipe in hanging.glob("*/metadata.json"):  # who hangs there reads nothing
            os.close(os.open(pipe, os.O_RDWR | os.O_NONBLOCK))
        shutil.rmtree(hanging)


def move_link(mortal: MortalWorker, target: Path | None) -> None:
    """Let the worker find another folder as Evidently's workspace, or none."""
    with contextlib.suppress(FileNotFoundError):
        mortal.link.unlink()
    if target is not None:
        mortal.link.symlink_to(target)
