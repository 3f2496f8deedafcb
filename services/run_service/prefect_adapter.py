"""Prefect over its REST API; the only file that knows it, and it never imports prefect itself."""

from __future__ import annotations

import asyncio
import base64
from collections.abc import Collection
from typing import Any, Self

import httpx

from run_service.config import Settings
from run_service.ports import (
    DeploymentMissingError,
    FlowRunRequest,
    FlowRunState,
    OrchestratorRefusedError,
    OrchestratorUnavailableError,
)

_FLOW = "optaic"
_PAGE = 200  # Prefect's limit
_CACHE_SIZE = 10_000
_NOT_FOUND = 404
_BAD_REQUEST = 400
_UNAUTHORIZED = 401
_TOO_MANY = 429
_SERVER_ERROR = 500
_STATES = {
    "COMPLETED": FlowRunState.COMPLETED,
    "FAILED": FlowRunState.FAILED,
    "CRASHED": FlowRunState.CRASHED,
    "CANCELLED": FlowRunState.CANCELLED,
}


class PrefectOrchestrator:
    """The port `Orchestrator` on a Prefect server or Prefect Cloud."""

    def __init__(self, settings: Settings) -> None:
        self._client = httpx.AsyncClient(
            base_url=settings.prefect_api_url.rstrip("/"),
            timeout=settings.prefect_timeout_seconds,
            headers=_authorization(settings.prefect_api_key, settings.prefect_auth_string),
            trust_env=False,
        )
        self._deployment_ids: dict[str, str] = {}

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def close(self) -> None:
        """Close the connections."""
        await self._client.aclose()

    async def ping(self) -> None:
        """See the port."""
        _accepted(await self._call("GET", "/health"))

    async def create_flow_run(self, request: FlowRunRequest) -> str:
        """Create the run's flow run, or find the one created before."""
        name = f"{request.tenant_id}.{request.instance_id}.{request.flow_kind}"
        body = {
            "name": request.name,
            "idempotency_key": request.run_id,
            "parameters": {
                "tenant_id": request.tenant_id,
                "instance_id": request.instance_id,
                "flow_kind": request.flow_kind,
                "run_id": request.run_id,
            },
            "tags": [
                "optaic",
                f"tenant:{request.tenant_id}",
                f"instance:{request.instance_id}",
                f"flow:{request.flow_kind}",
            ],
            "state": {"type": "SCHEDULED", "name": "Scheduled"},
        }
        is_cached = name in self._deployment_ids
        deployment_id = await self._deployment_id(name)
        response = await self._call("POST", f"/deployments/{deployment_id}/create_flow_run", body)
        if response.status_code == _NOT_FOUND:
            self._deployment_ids.pop(name, None)
            if not is_cached:
                raise DeploymentMissingError(name)
            return await self.create_flow_run(request)  # it was made anew under another id
        return str(_accepted(response)["id"])

    async def find_flow_run(self, run_id: str) -> str | None:
        """Return the id of the flow run created for a run, or None."""
        body = {"flow_runs": {"idempotency_key": {"any_": [run_id]}}, "limit": 1}
        found = _accepted(await self._call("POST", "/flow_runs/filter", body))
        return str(found[0]["id"]) if found else None

    async def get_states(self, flow_run_ids: Collection[str]) -> dict[str, FlowRunState]:
        """Return the states by flow-run id; one that was deleted is absent."""
        ids = sorted(flow_run_ids)
        pages = [ids[start : start + _PAGE] for start in range(0, len(ids), _PAGE)]
        answers = await asyncio.gather(*(self._list(page) for page in pages))
        return {
            flow_run["id"]: _STATES.get(flow_run["state_type"], FlowRunState.ACTIVE)
            for answer in answers
            for flow_run in answer
        }

    async def cancel_flow_run(self, flow_run_id: str) -> None:
        """Make a flow run CANCELLED at once; one that has ended or is gone stays as it is."""
        # `force` would also overwrite an end: look first.
        states = await self.get_states([flow_run_id])
        if states.get(flow_run_id) is not FlowRunState.ACTIVE:
            return
        body = {
            "state": {"type": "CANCELLED", "name": "Cancelled", "message": "the run was ended"},
            "force": True,
        }
        response = await self._call("POST", f"/flow_runs/{flow_run_id}/set_state", body)
        if response.status_code != _NOT_FOUND:
            _accepted(response)

    async def _list(self, ids: list[str]) -> list[dict[str, Any]]:
        body = {"flow_runs": {"id": {"any_": ids}}, "limit": _PAGE}
        answer: list[dict[str, Any]] = _accepted(await self._call("POST", "/flow_runs/filter", body))
        return answer

    async def _deployment_id(self, name: str) -> str:
        cached = self._deployment_ids.get(name)
        if cached is not None:
            return cached
        response = await self._call("GET", f"/deployments/name/{_FLOW}/{name}")
        if response.status_code == _NOT_FOUND:
            raise DeploymentMissingError(name)
        if len(self._deployment_ids) >= _CACHE_SIZE:
            self._deployment_ids.clear()
        deployment_id = self._deployment_ids[name] = str(_accepted(response)["id"])
        return deployment_id

    async def _call(self, method: str, path: str, body: Any = None) -> httpx.Response:
        try:
            response = await self._client.request(method, path, json=body)
        except httpx.HTTPError as error:
            raise OrchestratorUnavailableError(repr(error)) from error
        if response.status_code >= _SERVER_ERROR or response.status_code == _TOO_MANY:
            raise OrchestratorUnavailableError(f"{response.status_code}: {response.text[:500]}")
        if response.status_code == _UNAUTHORIZED:
            text = f"OPTAIC_PREFECT_API_KEY or _AUTH_STRING is not accepted: {response.text[:500]}"
            raise OrchestratorUnavailableError(text)
        return response


def _authorization(api_key: str, auth_string: str) -> dict[str, str]:
    """Return the header by which Prefect's own server, with the text, or Prefect Cloud, with the key, knows us."""
    if auth_string:
        return {"authorization": f"Basic {base64.b64encode(auth_string.encode()).decode()}"}
    return {"authorization": f"Bearer {api_key}"} if api_key else {}


def _accepted(response: httpx.Response) -> Any:
    if response.status_code >= _BAD_REQUEST:
        raise OrchestratorRefusedError(f"{response.status_code}: {response.text[:500]}")
    try:
        return response.json()
    except ValueError as error:  # a proxy's page, say
        text = f"this is no answer of Prefect: {response.status_code}: {response.text[:500]}"
        raise OrchestratorUnavailableError(text) from error
