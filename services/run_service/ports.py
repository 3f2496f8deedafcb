"""What run-service needs of outside systems; no implementation belongs here."""

from collections.abc import Collection
from dataclasses import dataclass
from enum import StrEnum
from typing import Protocol


class DeploymentMissingError(Exception):
    """The flow's deployment does not exist yet, or no longer."""


class OrchestratorUnavailableError(Exception):
    """The orchestrator does not answer; whether the call had an effect is unknown."""


class OrchestratorRefusedError(Exception):
    """The orchestrator understood the call and refuses it."""


class FlowRunState(StrEnum):
    """The orchestrator's view of a flow run, as far as it matters here."""

    ACTIVE = "ACTIVE"
    COMPLETED = "COMPLETED"
    FAILED = "FAILED"
    CRASHED = "CRASHED"
    CANCELLED = "CANCELLED"


@dataclass(frozen=True)
class FlowRunRequest:
    """What is to be executed; the run id makes repetitions harmless."""

    tenant_id: str
    instance_id: str
    flow_kind: str
    run_id: str
    name: str


class Orchestrator(Protocol):
    """Executes flows. Every method raises OrchestratorUnavailableError when there is no answer."""

    async def ping(self) -> None:
        """Return where it answers."""
        ...

    async def create_flow_run(self, request: FlowRunRequest) -> str:
        """Create the run's flow run, or find the one created before; return its id.

        Raises:
            DeploymentMissingError: There is no deployment for the flow.
            OrchestratorRefusedError: The deployment does not take the parameters.
        """
        ...

    async def find_flow_run(self, run_id: str) -> str | None:
        """Return the id of the flow run created for a run, or None."""
        ...

    async def get_states(self, flow_run_ids: Collection[str]) -> dict[str, FlowRunState]:
        """Return the states by flow-run id; one that was deleted is absent."""
        ...

    async def cancel_flow_run(self, flow_run_id: str) -> None:
        """Make a flow run CANCELLED at once; one that has ended or is gone stays as it is."""
        ...
