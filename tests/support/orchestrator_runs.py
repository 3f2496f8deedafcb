"""Orchestrators for the suite of run-service's port, and what others do to them."""

from __future__ import annotations

from typing import Protocol

from run_service.config import Settings
from run_service.ports import FlowRunState, Orchestrator
from run_service.prefect_adapter import PrefectOrchestrator
from support.prefect_api import PrefectApi
from support.run_service import FakeOrchestrator


class Ground(Protocol):
    """An orchestrator, and what others do to it."""

    @property
    def orchestrator(self) -> Orchestrator:
        """What is tested."""
        ...

    async def deploy(self, tenant_id: str, instance_id: str, flow_kind: str) -> None:
        """Make the deployment of a flow; again: under another id."""
        ...

    async def end(self, flow_run_id: str, state: FlowRunState) -> None:
        """Let a flow run end by itself."""
        ...

    async def delete(self, flow_run_id: str) -> None:
        """Delete a flow run."""
        ...


class FakeGround:
    """The fake."""

    def __init__(self) -> None:
        self.orchestrator = FakeOrchestrator()
        self.orchestrator.has_every_deployment = False

    async def deploy(self, tenant_id: str, instance_id: str, flow_kind: str) -> None:
        self.orchestrator.deployments.add((tenant_id, instance_id, flow_kind))

    async def end(self, flow_run_id: str, state: FlowRunState) -> None:
        self.orchestrator.flow_runs[flow_run_id] = state

    async def delete(self, flow_run_id: str) -> None:
        self.orchestrator.delete_flow_run(flow_run_id)


class PrefectGround:
    """A real server."""

    def __init__(self, orchestrator: PrefectOrchestrator, api: PrefectApi) -> None:
        self.orchestrator = orchestrator
        self._api = api

    async def deploy(self, tenant_id: str, instance_id: str, flow_kind: str) -> None:
        name = f"{tenant_id}.{instance_id}.{flow_kind}"
        flow = await self._api.call("POST", "/flows/", {"name": "optaic"})
        body = {"deployments": {"name": {"any_": [name]}}}
        for old in await self._api.call("POST", "/deployments/filter", body):
            await self._api.call("DELETE", f"/deployments/{old['id']}")
        await self._api.call(
            "POST",
            "/deployments/",
            {"name": name, "flow_id": flow["id"], "entrypoint": "worker.flow.execute"},
        )

    async def end(self, flow_run_id: str, state: FlowRunState) -> None:
        body = {"state": {"type": state.value, "name": state.value.title()}, "force": True}
        await self._api.call("POST", f"/flow_runs/{flow_run_id}/set_state", body)

    async def delete(self, flow_run_id: str) -> None:
        await self._api.call("DELETE", f"/flow_runs/{flow_run_id}")


def settings_for(api_url: str, timeout: float = 30) -> Settings:
    """Settings of a service that only speaks to Prefect."""
    url = "postgresql+psycopg://nobody@127.0.0.1:1/none"
    return Settings(
        database_url=url,
        database_owner_url=url,
        database_infra_url=url,
        prefect_api_url=api_url,
        prefect_timeout_seconds=timeout,
    )
