"""A worker's process in front of a real Prefect server, with a work pool of its own."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from optaic.common.v1 import flow_pb2
from optaic.rules.deployments import work_pool_of
from optaic.run.v1 import run_pb2
from support.polling import eventually
from support.prefect_api import ENTRYPOINT, PrefectApi
from support.processes import list_run_processes
from support.worker import World, running_process
from support.worker_peers import TENANT, TOKEN

REFRESH = flow_pb2.FLOW_KIND_REFRESH


class WorkerProcess:
    """One test's pool, deployments and worker environment."""

    def __init__(self, world: World, prefect: PrefectApi, url: str, folder: Path) -> None:
        self.world, self.prefect, self.folder = world, prefect, folder
        base = f"pool-{folder.name}"
        self.pool = work_pool_of(base, TENANT)
        self.log = folder / "worker.log"
        self.pid = 0  # of the worker, once it runs
        self.environment = {
            "OPTAIC_INSTANCE_ADDRESS": world.address,
            "OPTAIC_RUN_ADDRESS": world.address,
            "OPTAIC_TENANTS": json.dumps([TENANT]),
            "OPTAIC_EXECUTOR_TOKEN": TOKEN,
            "OPTAIC_DATA_ROOT": str(folder / "data"),
            "OPTAIC_PREFECT_API_URL": url,
            "OPTAIC_WORK_POOL": base,
            "OPTAIC_RUN_OUTPUT_FOLDER": str(folder / "run-output"),
            "OPTAIC_POLL_SECONDS": "0.5",
            "OPTAIC_CANCELLATION_POLL_SECONDS": "0.2",
            "OPTAIC_CHILD_ISOLATION": "none",  # plugins tell by files of the test what they did
            "PREFECT_HOME": str(folder / "prefect-home"),
        }

    @contextmanager
    def worker(self, **environment: str) -> Iterator[subprocess.Popen[bytes]]:
        """Our warm worker."""
        with running_process(["-m", "worker"], {**self.environment, **environment}, self.log) as process:
            self.pid = process.pid
            yield process

    async def pool_exists(self) -> None:
        """Wait for the pool that the worker makes."""

        async def found() -> bool:
            pools = await self.prefect.call("POST", "/work_pools/filter", {})
            return any(pool["name"] == self.pool for pool in pools)

        await eventually(found, 90)

    async def trigger(
        self, definition: str = "probe", *, entrypoint: str | None = ENTRYPOINT, **config: Any
    ) -> tuple[run_pb2.Run, str]:
        """Return a new run of a probe, or of another pipeline, and the id of its flow run."""
        run = self.world.runs.submit(self.world.dataset("dataset", definition, **config), REFRESH)
        deployment = await self.prefect.deploy(f"{TENANT}.{run.instance_id}.refresh", self.pool, entrypoint)
        return run, await self.prefect.trigger(
            deployment,
            tenant_id=TENANT,
            instance_id=run.instance_id,
            flow_kind="refresh",
            run_id=run.run_id,
        )

    async def child(self) -> int:
        """Return the process of user code of the only run."""

        def found() -> list[int]:
            assert self.pid
            return list_run_processes(self.pid)[1:]  # after its guardian

        return int((await eventually(found))[-1])
