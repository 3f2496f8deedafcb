"""Guardians of runs, forked from a warm process; it imports nothing that they do not need."""

from __future__ import annotations

import asyncio
import socket

from worker.children import Child, Forkserver
from worker.guardian import Line, guard, make_lines


def _be_guardian(orders: socket.socket, work: socket.socket) -> None:
    guard(Line(orders, work))


class Guardians:
    """Starts guardians of runs from a warm process, as the executor does."""

    _forkserver = Forkserver(
        [
            "__main__",  # otherwise each child would import it, which is pytest
            "support.guardians",
            "support.worker_plugins",
            "worker.child",
            "worker.builtin.delta_store",
            "worker.builtin.derivation",
            "worker.builtin.prices",
            "worker.builtin.simple_accessor",
            "pandas",
            "pyarrow.parquet",
            "skfolio.datasets",
        ]
    )
    _is_warm = False

    def __init__(self) -> None:
        self._started: list[Child] = []

    async def start(self) -> Line:
        """Return one more."""
        if not Guardians._is_warm:
            await self._forkserver.stop()  # another test's, which has imported other things
            await self._forkserver.start()
            Guardians._is_warm = True
        ours, guardians = make_lines()
        try:
            child = await self._forkserver.run(_be_guardian, guardians.orders, guardians.work)
        finally:
            guardians.close()
        self._started.append(child)
        return ours

    async def wait(self) -> None:
        """Wait until all have ended; each ends with its run."""
        await asyncio.gather(*(child.wait() for child in self._started))
