"""The ports: what run-service needs of outside systems, without the names or types of any tool."""

from collections.abc import Collection
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol

from run_service.domain.log_lines import LogLine
from run_service.domain.pairing import FlowRunState


class DeploymentMissingError(Exception):
    """The deployment of the flow does not exist."""


class OrchestratorUnavailableError(Exception):
    """The orchestrator does not answer; whether the call had an effect is unknown."""


class OrchestratorRefusedError(Exception):
    """The orchestrator understood the call and refuses it."""


@dataclass(frozen=True)
class FlowRunRequest:
    """A flow run to create; with its key, creating it twice has no further effect."""

    tenant_id: str
    instance_id: str
    flow_kind: str
    run_id: str
    name: str
    number: int = 1  # of the run's flow runs; the second takes the place of the first

    @property
    def key(self) -> str:
        """The idempotency key of the flow run."""
        return idempotency_key(self.run_id, self.number)


def idempotency_key(run_id: str, number: int) -> str:
    """Return the key of a run's flow run; the key of the first one is the run id."""
    return run_id if number == 1 else f"{run_id}.{number}"


@dataclass(frozen=True)
class CreatedFlowRun:
    """The flow run of a run, as the orchestrator answered."""

    flow_run_id: str
    queue_id: str = ""  # in which it waits; empty: it does not wait any more, or not yet


@dataclass(frozen=True)
class FlowRun:
    """A flow run as the orchestrator lists it; it may belong to another installation."""

    flow_run_id: str
    state: FlowRunState
    tenant_id: str
    instance_id: str
    flow_kind: str
    run_id: str  # empty: the orchestrator's schedule made it
    scheduled_time: datetime  # the nominal time


class Orchestrator(Protocol):
    """The executor of flows. Every method raises OrchestratorUnavailableError when there is no answer."""

    async def ping(self) -> None:
        """Check that the orchestrator answers."""
        ...

    async def create_flow_run(self, request: FlowRunRequest) -> CreatedFlowRun:
        """Create the run's flow run, or find the one created before.

        Raises:
            DeploymentMissingError: There is no deployment for the flow.
            OrchestratorRefusedError: The deployment does not take the parameters.
        """
        ...

    async def find_flow_run(self, key: str) -> str | None:
        """Return the id of the flow run that was created with a key, or None."""
        ...

    async def get_states(self, flow_run_ids: Collection[str]) -> dict[str, FlowRunState]:
        """Return the states by flow-run id; one that was deleted is absent."""
        ...

    async def get_flow_runs(self, flow_run_ids: Collection[str]) -> dict[str, FlowRun]:
        """Return those of the flow runs that exist and are of our flow, by id."""
        ...

    async def list_under_way(self) -> list[FlowRun]:
        """Return every flow run of our flow that a worker has claimed and that has not ended."""
        ...

    async def list_cancelled(self, since: datetime) -> list[FlowRun]:
        """Return at least the flow runs of our flow that were cancelled since then and name no run."""
        ...

    async def end_flow_run(self, flow_run_id: str, state: FlowRunState, message: str) -> None:
        """Set a flow run to COMPLETED, FAILED or CANCELLED, whatever its state; ignore one that does not exist."""
        ...

    async def list_log_lines(
        self, flow_run_id: str, *, start: datetime, end: datetime | None, min_level: int, limit: int
    ) -> list[LogLine]:
        """Return the first `limit` lines of a flow run's log in order of time, from `start` on and before `end`.

        Only lines of `min_level` (10 is DEBUG, 50 CRITICAL) and above. A flow run that was deleted may have none.

        Raises:
            OrchestratorRefusedError: The orchestrator does not take the question.
        """
        ...
