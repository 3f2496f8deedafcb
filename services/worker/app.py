"""The composition root of the warm executor; holds no rule."""

from __future__ import annotations

import asyncio

from worker.children import Forkserver
from worker.config import Settings
from worker.executor import Executor
from worker.prefect_adapter import WorkPool, quieten

# What a run needs, so that a child starts with it. Modules only: data or connections must not be shared by forks.
PRELOAD = (
    "prefect.flow_engine",
    "prefect.client.orchestration",
    "worker.prefect_adapter",
    "worker.flow",
    "worker.builtin.delta_store",
    "worker.builtin.derivation",
    "worker.builtin.prices",
    "worker.builtin.simple_accessor",
    "pandas",
    "pyarrow.parquet",
    "skfolio.datasets",
)


async def main(stop: asyncio.Event) -> None:
    """Run the executor until `stop` is set."""
    settings = Settings()
    quieten(settings.log_level)
    forkserver = Forkserver(PRELOAD)
    await forkserver.start()
    async with WorkPool(settings.work_pool, settings.work_pool_type) as pool:
        await Executor(settings, pool, forkserver).run(stop)
