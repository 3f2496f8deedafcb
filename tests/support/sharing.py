"""How the tests are shared out to the processes that run them at once."""

from __future__ import annotations

import os
from collections.abc import Collection

import psutil
from xdist.scheduler import LoadScopeScheduling
from xdist.workermanage import WorkerController

# What is run in one process, one test after the other, because it shares servers; what takes longest is begun first, so
# that no process ends alone with it. Files outside these folders are distributed one by one.
TOGETHER = (
    "tests/e2e",
    "tests/faults/run_service",
    "tests/faults/worker",
    "tests/integration/instance_service",
    "tests/security",
    "tests/e2e/test_upgrade.py",
    "tests/faults/instance_service",
    "tests/unit/worker",
    "tests/security/test_loop_held.py",
    "tests/security/test_nats_subjects.py",
    "tests/e2e/test_main_job.py",
    "tests/e2e/test_ten_commands.py",
    "tests/integration/control_plane",
    "tests/integration/worker",
    "tests/conformance",
    "tests/integration/devstack",
    "tests/integration/lineage_service",
    "tests/integration/servicekit",
    "tests/integration/run_service",
    "tests/integration/status_service",
    "tests/faults/storage",
    "tests/integration/storage",
    "tests/faults",
)
# What uses the servers that another one has started, and is best begun by the process that has them: a Prefect server
# costs ten seconds of CPU time to start, an MLflow server six.
AFTER = {
    "tests/conformance": "tests/faults/instance_service",
    "tests/integration/worker": "tests/faults/run_service",
    "tests/integration/storage": "tests/faults/storage",
}
_MEMORY_OF_ONE = 3 * 2**30  # a stack, or PostgreSQL, Prefect and MLflow


def scope_of(nodeid: str) -> str:
    """Return what this test is run together with: the narrowest of `TOGETHER`, or its file."""
    file = nodeid.partition("::")[0]
    return max((each for each in TOGETHER if f"{file}/".startswith(f"{each}/")), key=len, default=file)


def rank(scope: str) -> int:
    """Its place in the order in which scopes are begun."""
    return TOGETHER.index(scope) if scope in TOGETHER else len(TOGETHER)


def urgency(scope: str, begun_here: Collection[str], begun_or_waiting: Collection[str]) -> tuple[int, int]:
    """Tell what a process that has begun `begun_here` should begin: the scope for which this is least."""
    before = AFTER.get(scope)
    if before in begun_here:
        return 0, rank(scope)
    return (2 if before in begun_or_waiting else 1), rank(scope)


def count_processes() -> int:
    """Return three more than there are cores, as far as memory reaches: half of the time a test waits for another process."""
    by_memory = int(psutil.virtual_memory().total) // _MEMORY_OF_ONE
    return max(1, min((os.cpu_count() or 1) + 3, by_memory))


class LongestFirst(LoadScopeScheduling):  # type: ignore[misc]  # untyped
    """Each process takes the longest of the scopes that are left, or what uses the servers that it has started."""

    def _split_scope(self, nodeid: str) -> str:
        return scope_of(nodeid)

    def _assign_work_unit(self, node: WorkerController) -> None:
        here = self.assigned_work.get(node, {})
        somewhere = {scope for scopes in self.assigned_work.values() for scope in scopes} | {*self.workqueue}
        first = min(
            self.workqueue,
            key=lambda scope: (*urgency(scope, here, somewhere), -len(self.workqueue[scope])),
        )
        self.workqueue.move_to_end(first, last=False)
        super()._assign_work_unit(node)
