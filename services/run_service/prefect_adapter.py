"""The adapter for Prefect's flow runs, over its REST API; no other file of this service knows Prefect."""

from __future__ import annotations

import asyncio
import itertools
import uuid
from collections.abc import Collection
from datetime import datetime, timedelta
from typing import Any, Self

import httpx

from optaic.rules.deployments import (
    FLOW_NAME,
    PARAMETERS,
    deployment_name,
    flow_run_parameters,
    flow_run_tags,
)
from run_service.config import Settings
from run_service.domain.log_lines import LogLine, micros_of
from run_service.domain.pairing import FlowRunState
from run_service.ports import (
    CreatedFlowRun,
    DeploymentMissingError,
    FlowRun,
    FlowRunRequest,
    OrchestratorRefusedError,
    OrchestratorUnavailableError,
)
from servicekit import off_loop, prefect

_PAGE = 200  # Prefect's limit
_CACHE_SIZE = 10_000
_NOT_FOUND = 404
_BAD_REQUEST = 400
_UNAUTHORIZED = 401
_TOO_MANY = 429
_SERVER_ERROR = 500
# Every other state, for example PAUSED, counts as waiting.
_STATES = {
    "PENDING": FlowRunState.CLAIMED,
    "RUNNING": FlowRunState.RUNNING,
    "CANCELLING": FlowRunState.CANCELLING,
    "COMPLETED": FlowRunState.COMPLETED,
    "FAILED": FlowRunState.FAILED,
    "CRASHED": FlowRunState.CRASHED,
    "CANCELLED": FlowRunState.CANCELLED,
}
_UNDER_WAY = ["PENDING", "RUNNING", "CANCELLING"]
_LONGEST_MESSAGE = 1000  # characters


class PrefectOrchestrator:
    """The port `Orchestrator` on a Prefect server or Prefect Cloud."""

    def __init__(self, settings: Settings) -> None:
        self._client = httpx.AsyncClient(
            base_url=settings.prefect_api_url.rstrip("/"),
            timeout=settings.prefect_timeout_seconds,
            headers=prefect.authorization(settings.prefect_api_key, settings.prefect_auth_string),
            trust_env=False,
            verify=settings.https_context(),
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
        """Check that Prefect answers; raise OrchestratorUnavailableError if not."""
        _accepted(await self._call("GET", "/health"))

    async def create_flow_run(self, request: FlowRunRequest) -> CreatedFlowRun:
        """Create the run's flow run, or find the one created before."""
        flow = (request.tenant_id, request.instance_id, request.flow_kind)
        name = deployment_name(*flow)
        body = {
            "name": request.name,
            "idempotency_key": request.key,
            "parameters": flow_run_parameters(*flow, request.run_id),
            "tags": flow_run_tags(*flow),
            "state": {"type": "SCHEDULED", "name": "Scheduled"},
        }
        is_cached = name in self._deployment_ids
        deployment_id = await self._deployment_id(name)
        response = await self._call("POST", f"/deployments/{deployment_id}/create_flow_run", body)
        if response.status_code == _NOT_FOUND:
            self._deployment_ids.pop(name, None)
            if not is_cached:
                raise DeploymentMissingError(name)
            return await self.create_flow_run(request)  # it was created again, with another id
        return _created_of(_accepted(response))

    async def find_flow_run(self, key: str) -> str | None:
        """Return the id of the flow run that was created with a key, or None."""
        body = {"flow_runs": {"idempotency_key": {"any_": [key]}}, "limit": 1}
        found = _accepted(await self._call("POST", "/flow_runs/filter", body))
        return str(found[0]["id"]) if found else None

    async def get_states(self, flow_run_ids: Collection[str]) -> dict[str, FlowRunState]:
        """Return the states by flow-run id; one that was deleted is absent."""
        return {flow_run["id"]: _state_of(flow_run) for flow_run in await self._get(flow_run_ids)}

    async def get_flow_runs(self, flow_run_ids: Collection[str]) -> dict[str, FlowRun]:
        """Return those of the flow runs that exist and have the parameters of our flow, by id."""
        found = map(_flow_run_of, await self._get(flow_run_ids))
        return {flow_run.flow_run_id: flow_run for flow_run in found if flow_run is not None}

    async def _get(self, flow_run_ids: Collection[str]) -> list[dict[str, Any]]:
        ids = sorted(flow_run_ids)
        pages = [ids[start : start + _PAGE] for start in range(0, len(ids), _PAGE)]
        answers = await asyncio.gather(*(self._list(page) for page in pages))
        return [flow_run for answer in answers for flow_run in answer]

    async def list_under_way(self) -> list[FlowRun]:
        """Return every flow run of our flow that a worker has claimed and that has not ended."""
        return await self._list_flow_runs({"state": {"type": {"any_": _UNDER_WAY}}})

    async def list_cancelled(self, since: datetime) -> list[FlowRun]:
        """Return the flow runs of our flow that were cancelled since then and name no run."""
        listed = await self._list_flow_runs(
            {"state": {"type": {"any_": ["CANCELLED"]}}, "end_time": {"after_": since.isoformat()}}
        )
        return [flow_run for flow_run in listed if not flow_run.run_id]

    async def _list_flow_runs(self, wanted: dict[str, Any]) -> list[FlowRun]:
        listed: list[FlowRun] = []
        body: dict[str, Any] = {
            "flows": {"name": {"any_": [FLOW_NAME]}},
            "flow_runs": wanted,
            "sort": "ID_DESC",
            "limit": _PAGE,
        }
        for offset in itertools.count(0, _PAGE):
            page = _accepted(await self._call("POST", "/flow_runs/filter", {**body, "offset": offset}))
            listed += [flow_run for found in page if (flow_run := _flow_run_of(found)) is not None]
            if len(page) < _PAGE:
                break
        return listed

    async def end_flow_run(self, flow_run_id: str, state: FlowRunState, message: str) -> None:
        """Set a flow run to COMPLETED, FAILED or CANCELLED, whatever its state; ignore one that does not exist."""
        body = {
            "state": {
                "type": state.value,
                "name": state.value.title(),
                "message": message[:_LONGEST_MESSAGE],
            },
            "force": True,
        }
        response = await self._call("POST", f"/flow_runs/{flow_run_id}/set_state", body)
        if response.status_code != _NOT_FOUND:
            _accepted(response)

    async def list_log_lines(
        self, flow_run_id: str, *, start: datetime, end: datetime | None, min_level: int, limit: int
    ) -> list[LogLine]:
        """Return the first lines of a flow run's log, from `start` on and before `end`."""
        times = {"after_": start.isoformat()}  # both bounds are included
        if end is not None:
            times["before_"] = (end - timedelta(microseconds=1)).isoformat()
        wanted = {
            "flow_run_id": {"any_": [flow_run_id]},
            "timestamp": times,
            "level": {"ge_": min_level},
        }
        lines: list[LogLine] = []
        for offset in range(0, limit, _PAGE):
            size = min(_PAGE, limit - offset)
            body = {"logs": wanted, "sort": "TIMESTAMP_ASC", "limit": size, "offset": offset}
            response = await self._call("POST", "/logs/filter", body)
            page = await off_loop.run_if_large(len(response.content), _lines_of, response)
            lines += page
            if len(page) < size:
                break
        return lines

    async def _list(self, ids: list[str]) -> list[dict[str, Any]]:
        body = {"flow_runs": {"id": {"any_": ids}}, "limit": _PAGE}
        answer: list[dict[str, Any]] = _accepted(await self._call("POST", "/flow_runs/filter", body))
        return answer

    async def _deployment_id(self, name: str) -> str:
        cached = self._deployment_ids.get(name)
        if cached is not None:
            return cached
        response = await self._call("GET", f"/deployments/name/{FLOW_NAME}/{name}")
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
            text = f"{prefect.CREDENTIALS} is not accepted: {response.text[:500]}"
            raise OrchestratorUnavailableError(text)
        return response


def _state_of(flow_run: dict[str, Any]) -> FlowRunState:
    return _STATES.get(flow_run["state_type"], FlowRunState.WAITING)


def _created_of(found: dict[str, Any]) -> CreatedFlowRun:
    """Return a flow run that waits with its queue. Both of its times are Prefect's."""
    state = found["state"] or {}
    waits = state.get("type") == "SCHEDULED" and (
        datetime.fromisoformat(state["state_details"]["scheduled_time"])
        <= datetime.fromisoformat(state["timestamp"])
    )
    return CreatedFlowRun(str(found["id"]), str(found["work_queue_id"] or "") if waits else "")


def _lines_of(response: httpx.Response) -> list[LogLine]:
    return [
        LogLine(
            micros_of(datetime.fromisoformat(each["timestamp"])), each["level"], each["name"], each["message"]
        )
        for each in _accepted(response)
    ]


def _flow_run_of(found: dict[str, Any]) -> FlowRun | None:
    """Return a listed flow run; None if its parameters are not those of our deployments."""
    given = found["parameters"]
    values = [given.get(name) for name in PARAMETERS[:-1]]
    values += [given.get(PARAMETERS[-1], ""), found["expected_start_time"]]
    if not all(isinstance(value, str) for value in values):
        return None
    tenant_id, instance_id, flow_kind, run_id, time = values
    try:
        ids = [str(uuid.UUID(value)) if value else "" for value in (found["id"], instance_id, run_id)]
        scheduled_time = datetime.fromisoformat(time)
    except ValueError:
        return None
    return FlowRun(ids[0], _state_of(found), tenant_id, ids[1], flow_kind, ids[2], scheduled_time)


def _accepted(response: httpx.Response) -> Any:
    if response.status_code >= _BAD_REQUEST:
        raise OrchestratorRefusedError(f"{response.status_code}: {response.text[:500]}")
    try:
        return response.json()
    except ValueError as error:  # a proxy's page, say
        text = f"this is no answer of Prefect: {response.status_code}: {response.text[:500]}"
        raise OrchestratorUnavailableError(text) from error
