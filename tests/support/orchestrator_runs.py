"""Orchestrators for the suite of run-service's port, and what others do to them."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Collection
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any, Protocol

from run_service.config import Settings
from run_service.domain.log_lines import LogLine, micros_of, moment_of
from run_service.domain.pairing import UNDER_WAY, FlowRunState
from run_service.ports import (
    CreatedFlowRun,
    DeploymentMissingError,
    FlowRun,
    FlowRunRequest,
    Orchestrator,
    OrchestratorUnavailableError,
)
from run_service.prefect_adapter import PrefectOrchestrator
from support.prefect_api import PrefectApi

QUEUE_ID = str(uuid.uuid4())  # of the fake's only queue
_WORDS = {FlowRunState.WAITING: "SCHEDULED", FlowRunState.CLAIMED: "PENDING"}  # Prefect's


class Ground(Protocol):
    """An orchestrator, and what others do to it."""

    @property
    def orchestrator(self) -> Orchestrator:
        """What is tested."""
        ...

    async def deploy(self, tenant_id: str, instance_id: str, flow_kind: str) -> None:
        """Make the deployment of a flow; again: under another id."""
        ...

    async def set(self, flow_run_id: str, state: FlowRunState) -> None:
        """Let a worker, or somebody in the orchestrator, bring a flow run into a state."""
        ...

    async def schedule(self, tenant_id: str, instance_id: str, flow_kind: str) -> str:
        """Make a flow run as the orchestrator's clock does: without a run; return its id."""
        ...

    async def delete(self, flow_run_id: str) -> None:
        """Delete a flow run."""
        ...

    async def log(self, flow_run_id: str, *lines: LogLine) -> None:
        """Add lines to the log of a flow run, as its worker does."""
        ...


class FakeOrchestrator:
    """Implements `run_service.ports.Orchestrator` as Prefect behaves; held to it by the conformance suite."""

    def __init__(self) -> None:
        self.has_every_deployment = True
        self.deployments: set[tuple[str, str, str]] = set()
        self.flow_runs: dict[str, FlowRunState] = {}
        self.messages: dict[str, str] = {}  # with which it was ended
        self.listed: dict[str, FlowRun] = {}
        self.ids_by_key: dict[str, str] = {}
        self.logs: dict[str, list[LogLine]] = {}
        self.log_reads = 0
        self.creations: list[FlowRunRequest] = []
        self.is_down = False
        self.lost_answers = 0  # this number of creations take effect without an answer
        self.before_answer: Callable[[str], Any] | None = None

    def _check(self) -> None:
        if self.is_down:
            raise OrchestratorUnavailableError("down")

    async def ping(self) -> None:
        self._check()

    async def create_flow_run(self, request: FlowRunRequest) -> CreatedFlowRun:
        self._check()
        key = (request.tenant_id, request.instance_id, request.flow_kind)
        if not self.has_every_deployment and key not in self.deployments:
            raise DeploymentMissingError(str(key))
        if request.key not in self.ids_by_key:
            flow_run_id = self.add(*key, run_id=request.run_id)
            self.ids_by_key[request.key] = flow_run_id
            self.creations.append(request)
        flow_run_id = self.ids_by_key[request.key]
        if self.lost_answers:
            self.lost_answers -= 1
            raise OrchestratorUnavailableError("the answer was lost")
        if self.before_answer is not None:
            await self.before_answer(flow_run_id)
        waits = self.flow_runs[flow_run_id] is FlowRunState.WAITING
        return CreatedFlowRun(flow_run_id, QUEUE_ID if waits else "")

    async def find_flow_run(self, key: str) -> str | None:
        self._check()
        return self.ids_by_key.get(key)

    async def get_states(self, flow_run_ids: Collection[str]) -> dict[str, FlowRunState]:
        self._check()
        return {each: self.flow_runs[each] for each in flow_run_ids if each in self.flow_runs}

    async def get_flow_runs(self, flow_run_ids: Collection[str]) -> dict[str, FlowRun]:
        states = await self.get_states(flow_run_ids)
        return {each: replace(self.listed[each], state=state) for each, state in states.items()}

    async def list_under_way(self) -> list[FlowRun]:
        self._check()
        return [
            replace(self.listed[each], state=state)
            for each, state in self.flow_runs.items()
            if state in UNDER_WAY
        ]

    async def list_cancelled(self, since: datetime) -> list[FlowRun]:
        self._check()
        del since  # it also lists earlier ones
        return [
            replace(self.listed[each], state=state)
            for each, state in self.flow_runs.items()
            if state is FlowRunState.CANCELLED and not self.listed[each].run_id
        ]

    async def end_flow_run(self, flow_run_id: str, state: FlowRunState, message: str) -> None:
        self._check()
        if flow_run_id in self.flow_runs:
            self.flow_runs[flow_run_id] = state
            self.messages[flow_run_id] = message

    async def list_log_lines(
        self, flow_run_id: str, *, start: datetime, end: datetime | None, min_level: int, limit: int
    ) -> list[LogLine]:
        self._check()
        self.log_reads += 1
        return [
            line
            for line in sorted(self.logs.get(flow_run_id, ()))
            if line.level >= min_level
            and line.time >= micros_of(start)
            and (end is None or line.time < micros_of(end))
        ][:limit]

    def add(
        self,
        tenant_id: str,
        instance_id: str,
        flow_kind: str,
        *,
        run_id: str = "",
        scheduled_time: datetime = datetime(2024, 1, 2, 3, 4, tzinfo=UTC),
    ) -> str:
        """Add a flow run that waits; return its id."""
        flow_run_id = str(uuid.uuid4())
        self.flow_runs[flow_run_id] = FlowRunState.WAITING
        self.listed[flow_run_id] = FlowRun(
            flow_run_id, FlowRunState.WAITING, tenant_id, instance_id, flow_kind, run_id, scheduled_time
        )
        return flow_run_id

    def delete_flow_run(self, flow_run_id: str) -> None:
        """Somebody deletes it in the orchestrator; its idempotency key is free again."""
        del self.flow_runs[flow_run_id]
        self.logs.pop(flow_run_id, None)
        self.ids_by_key = {key: each for key, each in self.ids_by_key.items() if each != flow_run_id}


class FakeGround:
    """The fake."""

    def __init__(self) -> None:
        self.orchestrator = FakeOrchestrator()
        self.orchestrator.has_every_deployment = False

    async def deploy(self, tenant_id: str, instance_id: str, flow_kind: str) -> None:
        self.orchestrator.deployments.add((tenant_id, instance_id, flow_kind))

    async def set(self, flow_run_id: str, state: FlowRunState) -> None:
        self.orchestrator.flow_runs[flow_run_id] = state

    async def schedule(self, tenant_id: str, instance_id: str, flow_kind: str) -> str:
        return self.orchestrator.add(tenant_id, instance_id, flow_kind)

    async def delete(self, flow_run_id: str) -> None:
        self.orchestrator.delete_flow_run(flow_run_id)

    async def log(self, flow_run_id: str, *lines: LogLine) -> None:
        self.orchestrator.logs.setdefault(flow_run_id, []).extend(lines)


class PrefectGround:
    """A real server."""

    def __init__(self, orchestrator: PrefectOrchestrator, api: PrefectApi) -> None:
        self.orchestrator = orchestrator
        self._api = api
        self._pool = ""

    async def deploy(self, tenant_id: str, instance_id: str, flow_kind: str) -> None:
        name = f"{tenant_id}.{instance_id}.{flow_kind}"
        flow = await self._api.call("POST", "/flows/", {"name": "optaic"})
        named = {"deployments": {"name": {"any_": [name]}}}
        for old in await self._api.call("POST", "/deployments/filter", named):
            await self._api.call("DELETE", f"/deployments/{old['id']}")
        parameters = {"tenant_id": tenant_id, "instance_id": instance_id, "flow_kind": flow_kind}
        if not self._pool:
            self._pool = f"pool-{uuid.uuid4()}"
            await self._api.call("POST", "/work_pools/", {"name": self._pool, "type": "process"})
        body = {"name": name, "flow_id": flow["id"], "entrypoint": "worker.flow.execute"}
        body |= {"work_pool_name": self._pool}
        await self._api.call("POST", "/deployments/", {**body, "parameters": parameters})

    async def set(self, flow_run_id: str, state: FlowRunState) -> None:
        if state is FlowRunState.CANCELLING:  # one that waits would be CANCELLED at once
            await self.set(flow_run_id, FlowRunState.RUNNING)
        word = _WORDS.get(state, state.value)
        body = {"state": {"type": word, "name": word.title()}, "force": True}
        await self._api.call("POST", f"/flow_runs/{flow_run_id}/set_state", body)

    async def schedule(self, tenant_id: str, instance_id: str, flow_kind: str) -> str:
        name = f"{tenant_id}.{instance_id}.{flow_kind}"
        deployment = await self._api.call("GET", f"/deployments/name/optaic/{name}")
        return await self._api.trigger(deployment["id"])

    async def delete(self, flow_run_id: str) -> None:
        await self._api.call("DELETE", f"/flow_runs/{flow_run_id}")

    async def log(self, flow_run_id: str, *lines: LogLine) -> None:
        body = [
            {
                "flow_run_id": flow_run_id,
                "timestamp": moment_of(line.time).isoformat(),
                "level": line.level,
                "name": line.logger,
                "message": line.message,
            }
            for line in lines
        ]
        await self._api.call("POST", "/logs/", body)


def settings_for(api_url: str, timeout: float = 30) -> Settings:
    """Return settings of a service that only speaks to Prefect."""
    url = "postgresql+psycopg://nobody@127.0.0.1:1/none"
    return Settings(
        database_url=url,
        database_owner_url=url,
        database_infra_url=url,
        prefect_api_url=api_url,
        prefect_timeout_seconds=timeout,
    )
