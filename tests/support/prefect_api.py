"""A Prefect server's REST API, as far as tests look into it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import httpx

from support.polling import eventually

FINAL = frozenset({"COMPLETED", "FAILED", "CANCELLED", "CRASHED"})


class PrefectApi:
    """One server."""

    def __init__(self, client: httpx.AsyncClient) -> None:
        self._client = client

    async def call(self, method: str, path: str, body: Any = None) -> Any:
        """One request; the decoded answer."""
        answer = await self._client.request(method, path, json=body)
        answer.raise_for_status()
        return answer.json() if answer.content else None

    async def deploy(self, name: str, pool: str) -> str:
        """A deployment of the worker's flow."""
        flow = await self.call("POST", "/flows/", {"name": "optaic"})
        deployment = await self.call(
            "POST",
            "/deployments/",
            {
                "name": name,
                "flow_id": flow["id"],
                "entrypoint": "worker.flow.execute",
                "work_pool_name": pool,
            },
        )
        return str(deployment["id"])

    async def trigger(self, deployment_id: str, **parameters: str) -> str:
        """A flow run that is due now."""
        body = {"parameters": parameters, "state": {"type": "SCHEDULED"}}
        created = await self.call("POST", f"/deployments/{deployment_id}/create_flow_run", body)
        return str(created["id"])

    async def state(self, flow_run_id: str) -> Any:
        """Its state now: `type`, `name`, `message`."""
        return (await self.call("GET", f"/flow_runs/{flow_run_id}"))["state"]

    async def wait(self, flow_run_id: str, *types: str, deadline: float = 30.0) -> Any:
        """Its state, once it is one of `types`; any final one without."""

        async def reached() -> Any:
            state = await self.state(flow_run_id)
            return state if state["type"] in (types or FINAL) else None

        return await eventually(reached, deadline)


@asynccontextmanager
async def prefect_api(url: str) -> AsyncIterator[PrefectApi]:
    """A client that ignores proxies."""
    async with httpx.AsyncClient(base_url=url, timeout=10, trust_env=False) as client:
        yield PrefectApi(client)
