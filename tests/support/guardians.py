"""Guardians of runs, forked from a warm process; it imports nothing that they do not need."""

from __future__ import annotations

from worker import guardians
from worker.children import Forkserver
from worker.guardian import Line

forkserver = Forkserver(
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


class Guardians(guardians.Guardians):
    """Starts guardians as the executor does, from one process for all tests."""

    _is_warm = False

    def __init__(self) -> None:
        super().__init__(forkserver)

    async def start(self) -> Line:
        """Start one more."""
        if not Guardians._is_warm:
            await forkserver.stop()  # another test's, which has imported other things
            await forkserver.start()
            Guardians._is_warm = True
        return await super().start()
