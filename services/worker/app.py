"""The composition root of the warm executor; holds no rule."""

from __future__ import annotations

import asyncio
import importlib
from pathlib import Path

import structlog

from optaic.plugins.registry import list_registered_code
from worker import cgroup, environment, preload, process_tree, temporary
from worker.children import Forkserver
from worker.import_paths import check_import_paths
from worker.run_output import prepare_folder

_FAREWELL_SECONDS = 2.0  # for the last lines of logs
_log = structlog.get_logger(__name__)


async def main(stop: asyncio.Event) -> None:
    """Run the executor until `stop` is set."""
    settings = environment.take()
    check_import_paths(settings)
    list_registered_code()  # before any run can put a package anywhere
    # Before any run starts, so that an operator can still correct the folder.
    prepare_folder(Path(settings.run_output_folder))
    prepare_folder(Path(settings.telemetry_folder), "OPTAIC_TELEMETRY_FOLDER")
    forkserver = Forkserver(preload.PRELOAD)
    warming = asyncio.create_task(forkserver.start(), name="warming")
    await asyncio.sleep(0)  # let it begin: both processes spend seconds on imports, side by side
    from worker.confining import find_means  # noqa: PLC0415 - imports what computes, side by side
    from worker.executor import Executor  # noqa: PLC0415 - imports Prefect
    from worker.guardians import Guardians  # noqa: PLC0415 - imported side by side with the other process
    from worker.housekeeping import keep_house  # noqa: PLC0415 - the same
    from worker.log_delivery import delivering  # noqa: PLC0415 - the same
    from worker.peers import connect_peers  # noqa: PLC0415 - the same
    from worker.prefect_adapter import WorkPool, quieten  # noqa: PLC0415 - the same
    from worker.source_probing import probe_sources  # noqa: PLC0415 - the same
    from worker.telemetry import make_telemetry  # noqa: PLC0415 - the same

    quieten(settings.log_level)
    # The first run need not wait for the hashes of what is built in.
    await asyncio.to_thread(importlib.import_module, "worker.loaded_code")
    if left := await asyncio.to_thread(cgroup.sweep):
        _log.warning("processes of runs ended that another worker left", runs=left)
    if left := await asyncio.to_thread(temporary.sweep):
        _log.warning("temporary folders of runs removed that another worker left", runs=left)
    await find_means(settings)  # before any run starts, as well
    await warming
    process_tree.adopt_orphans()  # what a guardian leaves that is killed itself
    guardians = Guardians(forkserver)
    telemetry = make_telemetry(settings)
    async with (
        WorkPool(settings) as pool,
        connect_peers(settings) as peers,
        delivering(settings.log_folder, pool.send_lines, _FAREWELL_SECONDS) as logs,
    ):
        owing = asyncio.create_task(telemetry.run(peers, stop), name="telemetry")
        housekeeping = asyncio.create_task(keep_house(settings, guardians.start, stop), name="housekeeping")
        probing = asyncio.create_task(probe_sources(settings, guardians.start, stop), name="probing")
        try:
            await Executor(settings, pool, guardians.start, peers, telemetry, logs).run(stop)
        finally:
            for task in (housekeeping, owing, probing):
                task.cancel()
            await asyncio.wait({housekeeping, owing, probing})
            await telemetry.close()
            await guardians.wait()
            await forkserver.stop()
