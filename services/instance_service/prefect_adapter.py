"""The adapter for Prefect's deployments, over its REST API; no other file of this service knows Prefect."""

from __future__ import annotations

import asyncio
import datetime as dt
import ssl
from collections.abc import AsyncIterator, Mapping, Sequence
from typing import Any

import httpx

from instance_service.ports import Deployment, Ensured, OutsideUnavailableError
from optaic.plugins.words import describe_error
from optaic.rules.deployments import (
    ENTRYPOINT,
    FIRST_TENANT,
    FLOW_NAME,
    PARAMETERS,
    TAG,
    installation_tag,
    work_pool_of,
)
from optaic.rules.schedules import Timing
from servicekit import prefect

_PAGE = 200
_CONCURRENCY = 4  # Prefect serves 25 to 40 writes per second, no matter how many come at once
_ANCHOR = "2020-01-01T00:00:00Z"
_PARAMETER_SCHEMA = {
    "type": "object",
    "properties": {name: {"type": "string"} for name in PARAMETERS},
}
_JSON = dict[str, Any]
# Equal in all deployments, sent and compared: an edit of any of these changes what runs, or prevents it.
_FIXED: _JSON = {
    "entrypoint": ENTRYPOINT,
    "path": None,
    "pull_steps": None,
    "work_queue_name": "default",
    "job_variables": {},
    "enforce_parameter_schema": False,
}


class PrefectDeployments:
    """The port `Deployments` on one Prefect server."""

    def __init__(
        self,
        api_url: str,
        work_pool: str,
        timeout_seconds: float,
        *,
        api_key: str = "",
        auth_string: str = "",
        certificates: ssl.SSLContext | bool = True,
    ) -> None:
        self._client = httpx.AsyncClient(
            base_url=api_url.rstrip("/") + "/",
            timeout=timeout_seconds,
            headers=prefect.authorization(api_key, auth_string),
            limits=httpx.Limits(max_connections=2 * _CONCURRENCY),
            trust_env=False,
            verify=certificates,
        )
        self._work_pool = work_pool
        self._slots = asyncio.Semaphore(_CONCURRENCY)
        self._flow_id = ""  # the id of the one flow of all deployments; forgotten after an error

    async def close(self) -> None:
        """Close the connections."""
        await self._client.aclose()

    async def ping(self) -> None:
        """Check that Prefect answers; see the port."""
        await self._call("GET", "health")

    async def ensure(self, desired: Sequence[Deployment]) -> Ensured:
        """Create or repair deployments; see the port."""
        known = await self._find([deployment.name for deployment in desired])
        ensured = Ensured()
        wrong: list[Deployment] = []
        for deployment in desired:
            found = known.get(deployment.name)
            if found is not None and self._as_observed(found) == deployment:
                ensured.ids[deployment.name] = found["id"]
            else:
                wrong.append(deployment)
        if wrong:
            remembered, self._flow_id = self._flow_id, ""
            flow_id = remembered or (await self._call("POST", "flows/", {"name": FLOW_NAME}))["id"]
            upserts = (
                self._upsert(self._body(flow_id, deployment, found), found, ensured)
                for deployment in wrong
                for found in [known.get(deployment.name)]
            )
            # Not a task group: its callers would get a group of errors, and one refusal would cancel the others.
            for problem in await asyncio.gather(*upserts, return_exceptions=True):
                if problem is not None:
                    raise problem
            if not ensured.refusals:
                self._flow_id = flow_id
            elif remembered:
                return await self.ensure(
                    desired
                )  # the flow may have been deleted: the next call asks for it again
        return ensured

    async def delete(self, names: Sequence[str]) -> dict[str, str]:
        """Remove deployments by name; see the port."""
        refusals = {}
        for name, found in (await self._find(names)).items():
            try:
                await self._call("DELETE", f"deployments/{found['id']}", missing_is_fine=True)
            except _RefusedError as error:
                refusals[name] = error.message
        return refusals

    async def pages(self, installation_id: str) -> AsyncIterator[Sequence[Deployment]]:
        """Yield every deployment that is tagged with the installation; see the port."""
        offset = 0
        while True:
            query = {
                "deployments": {"tags": {"all_": [TAG, installation_tag(installation_id)]}},
                "flows": {"name": {"any_": [FLOW_NAME]}},
                "sort": "NAME_ASC",
                "limit": _PAGE,
                "offset": offset,
            }
            found = await self._call("POST", "deployments/filter", query)
            yield [self._as_observed(item) for item in found]
            if len(found) < _PAGE:
                return
            offset += _PAGE

    async def planned(self, names: Sequence[str], after: dt.datetime) -> set[str]:
        """Return the deployments that have planned runs; see the port."""
        runs = {
            "state": {"type": {"any_": ["SCHEDULED"]}},
            "expected_start_time": {"after_": after.isoformat()},
        }
        return set(await self._find(names, flow_runs=runs))

    async def _find(self, names: Sequence[str], **filters: _JSON) -> dict[str, _JSON]:
        found: dict[str, _JSON] = {}
        for begin in range(0, len(names), _PAGE):
            query = {
                "deployments": {"name": {"any_": list(names[begin : begin + _PAGE])}},
                "flows": {"name": {"any_": [FLOW_NAME]}},
                "limit": _PAGE,
                **filters,
            }
            for item in await self._call("POST", "deployments/filter", query):
                found[item["name"]] = item
        return found

    async def _upsert(self, body: _JSON, found: _JSON | None, ensured: Ensured) -> None:
        try:
            async with self._slots:
                stored = await self._call("POST", "deployments/", _FIXED | body)
                if found is not None and found.get("work_pool_name") not in (None, body["work_pool_name"]):
                    await self._give_back(stored["id"])
        except _RefusedError as error:
            ensured.refusals[body["name"]] = error.message
        else:
            ensured.ids[body["name"]] = stored["id"]

    async def _give_back(self, deployment_id: str) -> None:
        """End the flow runs that wait in the pool that a deployment has left; run-service makes new ones for their runs."""
        query = {
            "flow_runs": {
                "deployment_id": {"any_": [deployment_id]},
                "state": {"type": {"any_": ["SCHEDULED"]}},
            },
            "limit": _PAGE,
        }
        for waiting in await self._call("POST", "flow_runs/filter", query):
            if not waiting.get("auto_scheduled"):  # Prefect plans those anew
                state = {"type": "CRASHED", "message": "The deployment has moved to another work pool."}
                body = {"state": state, "force": True}
                await self._call("POST", f"flow_runs/{waiting['id']}/set_state", body, missing_is_fine=True)

    def _body(self, flow_id: str, desired: Deployment, found: _JSON | None) -> _JSON:
        """Return the body of a request that creates or repairs a deployment."""
        return _body(flow_id, desired, found) | {"work_pool_name": self._pool_of(desired.parameters)}

    def _pool_of(self, parameters: Sequence[tuple[str, str]]) -> str:
        """Return the work pool in which the flow runs of a deployment wait for its tenant's worker."""
        return work_pool_of(self._work_pool, dict(parameters).get("tenant_id", FIRST_TENANT))

    def _as_observed(self, found: _JSON) -> Deployment:
        """Convert Prefect's answer into a deployment; if a setting common to all was edited, it equals no desired one."""
        observed = _deployment(found)
        fixed = _FIXED | {"work_pool_name": self._pool_of(observed.parameters)}
        is_fixed = all(found.get(field) == value for field, value in fixed.items())
        is_plain = not found.get("global_concurrency_limit") and all(map(_is_plain, found["schedules"]))
        return observed if is_fixed and is_plain else Deployment(observed.name, (), ())

    async def _call(
        self, method: str, path: str, body: Mapping[str, Any] | None = None, *, missing_is_fine: bool = False
    ) -> Any:
        try:
            response = await self._client.request(method, path, json=body)
        except httpx.HTTPError as error:
            raise OutsideUnavailableError(
                "PrefectUnavailable", f"Prefect does not answer: {describe_error(error)}"
            ) from error
        if response.is_success:
            return _read_json(response) if response.content else None
        text = response.text[:500]
        if response.status_code == httpx.codes.NOT_FOUND:
            if missing_is_fine:
                return None
            if "ork pool" in text:
                pool = (body or {}).get("work_pool_name", self._work_pool)
                message = (
                    f"Prefect has no work pool {pool!r} yet; start the tenant's worker, which creates it"
                )
                raise OutsideUnavailableError("WorkPoolMissing", message)
        if response.status_code == httpx.codes.UNAUTHORIZED:
            message = f"Prefect does not accept {prefect.CREDENTIALS}: {response.status_code}: {text}"
            raise OutsideUnavailableError("PrefectUnauthorized", message)
        if (
            response.status_code == httpx.codes.FORBIDDEN
        ):  # it concerns one deployment and not the others of the batch
            message = (
                f"Prefect does not allow this call with {prefect.CREDENTIALS}: {response.status_code}: {text}"
            )
            raise _RefusedError("PrefectUnauthorized", message)
        if response.is_client_error and response.status_code != httpx.codes.TOO_MANY_REQUESTS:
            raise _RefusedError("PrefectRefused", f"{response.status_code}: {text}")
        raise OutsideUnavailableError("PrefectUnavailable", f"{response.status_code}: {text}")


class _RefusedError(OutsideUnavailableError):
    """Prefect answers with a refusal; repeating the same call will not help."""


def _read_json(response: httpx.Response) -> Any:
    try:
        return response.json()
    except ValueError as error:  # for example a proxy's page
        text = f"the answer does not come from Prefect, check its URL: {response.status_code}: {response.text[:500]}"
        raise OutsideUnavailableError("PrefectUnavailable", text) from error


def _body(flow_id: str, desired: Deployment, found: _JSON | None) -> _JSON:
    """Return the body of a request that creates or repairs a deployment."""
    body: _JSON = {
        "name": desired.name,
        "flow_id": flow_id,
        "tags": list(desired.tags),
        "parameters": dict(desired.parameters),
        "parameter_openapi_schema": _PARAMETER_SCHEMA,
        "paused": desired.is_paused,
        "schedules": [_schedule(timing) for timing in desired.timings],
        "concurrency_limit": None,  # Prefect deletes the limit together with the deployment, so no other may share it
    }
    limit = found and found.get("global_concurrency_limit")
    if found and limit and limit["name"] != f"deployment:{found['id']}":
        body["global_concurrency_limit_id"] = None
    return body


def _schedule(timing: Timing) -> _JSON:
    if timing.cron:
        clock: _JSON = {"cron": timing.cron, "timezone": timing.timezone}
    else:
        clock = {"interval": timing.interval_seconds, "anchor_date": _ANCHOR, "timezone": timing.timezone}
    return {"schedule": clock, "active": timing.is_active, "slug": timing.slug}


def _deployment(found: _JSON) -> Deployment:
    timings = [_timing(item) for item in found["schedules"]]
    return Deployment(
        name=found["name"],
        tags=tuple(found["tags"]),
        parameters=tuple(sorted((key, value) for key, value in found["parameters"].items())),
        timings=tuple(sorted(timings, key=lambda timing: timing.slug)),
        is_paused=found["paused"],
    )


def _is_plain(item: _JSON) -> bool:
    """Return whether a schedule sets nothing but its timing."""
    clock = item["schedule"]
    return (
        not item.get(
            "parameters"
        )  # they would override the deployment's parameters and could run another instance
        and item.get("max_scheduled_runs") is None
        and clock.get("day_or", True)
        and clock.get("interval", 0) % 1 == 0
        and dt.datetime.fromisoformat(clock.get("anchor_date", _ANCHOR)) == dt.datetime.fromisoformat(_ANCHOR)
    )


def _timing(item: _JSON) -> Timing:
    clock = item["schedule"]
    return Timing(
        slug=item.get("slug") or "",
        timezone=clock.get("timezone") or "UTC",
        cron=clock.get("cron") or "",
        interval_seconds=int(clock.get("interval") or 0),
        is_active=item["active"],
    )
