"""A work pool for tests of the executor."""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable, Sequence
from uuid import UUID, uuid4

from servicekit.ids import new_id
from worker.execution import Ending
from worker.prefect_adapter import DueRun, FlowRunNotWaitingError, FlowRunRefusedError

NOW = dt.datetime(2026, 1, 2, 16, 30, tzinfo=dt.UTC)
GIVEN = {"tenant_id": "acme", "instance_id": new_id(), "flow_kind": "refresh"}


class FakeWorkPool:
    """A work pool as Prefect keeps it: it lists what waits, and lets one that has ended be claimed again."""

    def __init__(self, count: int) -> None:
        self.due: dict[UUID, DueRun] = {}
        self.states: dict[UUID, str] = {}
        self.looks: list[int] = []
        self.reads = 0
        self.claimed: list[UUID] = []
        self.refused: list[UUID] = []
        self.failures = 0  # so many claims fail before Prefect answers again
        self.given_back: list[UUID] = []
        self.ended: list[UUID] = []
        self.after_look: Callable[[], object] = bool
        self.free_queues: set[UUID] = set()
        self.views = 0
        for _ in range(count):
            self.add()

    async def ensure(self) -> None:
        """There is one."""

    def add(self, **parameters: str) -> UUID:
        """Let one more flow run wait."""
        added = DueRun(uuid4(), {**GIVEN, **parameters}, NOW)
        self.due[added.id] = added
        self.states[added.id] = "SCHEDULED"
        return added.id

    async def list_due(self, limit: int) -> list[DueRun]:
        """Return those that wait."""
        found = [each for each in self.due.values() if self.states[each.id] == "SCHEDULED"][:limit]
        self.looks.append(len(found))
        self.after_look()
        return found

    async def list_free_queues(self) -> set[UUID]:
        """Return what the test says."""
        self.views += 1
        return set(self.free_queues)

    async def list_waiting(self, ids: Sequence[UUID]) -> set[UUID]:
        """Return those that still wait."""
        self.reads += 1
        return {each for each in ids if self.states[each] == "SCHEDULED"}

    async def claim(self, flow_run_id: UUID) -> None:
        """Set it PENDING, if Prefect would."""
        if self.failures:
            self.failures -= 1
            raise ConnectionError
        state = self.states[flow_run_id]
        if state in {"PENDING", "RUNNING", "CANCELLED"}:
            self.refused.append(flow_run_id)
            raise FlowRunRefusedError(f"it is {state}")
        self.states[flow_run_id] = "PENDING"
        if state != "SCHEDULED":
            raise FlowRunNotWaitingError("it had ended", uuid4())
        self.claimed.append(flow_run_id)

    async def give_back(self, flow_run_id: UUID, _: UUID) -> None:
        """Undo the claim of one that had ended."""
        self.states[flow_run_id] = "COMPLETED"
        self.given_back.append(flow_run_id)

    async def record_running(self, flow_run_id: UUID) -> None:
        """Set it RUNNING."""
        self.states[flow_run_id] = "RUNNING"

    async def record_end(self, flow_run_id: UUID, _: Ending) -> None:
        """Set it COMPLETED."""
        self.states[flow_run_id] = "COMPLETED"
        self.ended.append(flow_run_id)

    async def list_cancelling(self, _: object) -> list[UUID]:
        """Return none."""
        return []
