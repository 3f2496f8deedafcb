"""The deliverer to MLflow, over its REST API: a run with params, metrics, files and a registered version; it loads no model."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Mapping
from typing import Any
from urllib.parse import quote

import httpx

from optaic.plugins.words import describe_error
from optaic.rules.counterparts import NAME_TAG, RUN_TAG
from worker.config import Settings
from worker.telemetry.debts import Debt, Delivered, GoneError, RefusedError, UnreachableError
from worker.written_files import WrittenFile

_CHUNK = 1024 * 1024
_BATCH = 100  # params of one call; MLflow takes no more
_MOST = 1_000  # metrics of one call
_MISSING, _EXISTS = "RESOURCE_DOES_NOT_EXIST", "RESOURCE_ALREADY_EXISTS"
_UPLOADED = "mlflow-artifacts:"  # artifacts that MLflow's server takes
_OF_ALL_CALLS = {401, 408, 429}  # it refuses whatever is asked
_UPLOAD_FACTOR = 12  # how many times longer a file may take than another call


class MlflowDeliverer:
    """The deliverer to one MLflow server."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._made: httpx.AsyncClient | None = None

    async def deliver(self, debt: Debt) -> Delivered:
        """Give MLflow the run of a training, or complete what was given before."""
        payload = debt.payload
        experiment_id = await self._find_experiment(payload["experiment"])
        run = await self._find_run(experiment_id, debt) or await self._create_run(experiment_id, debt)
        run_id = run["info"]["run_id"]
        await self._log(run_id, payload)
        source = await self._upload(run["info"]["artifact_uri"], debt)
        version = await self._find_version(payload["experiment"], run_id)
        if not version:
            version = await self._register(payload["experiment"], run_id, source, debt)
        await self._end(run_id, "FINISHED", payload.get("end_time"))
        return Delivered(run_id, version)

    async def withdraw(self, debt: Debt) -> None:
        """Say in MLflow that the run failed, and remove its registered versions."""
        experiment_id = await self._find_experiment(debt.payload["experiment"])
        run = await self._find_run(experiment_id, debt)
        if run is None:
            return
        name, run_id = debt.payload["experiment"], run["info"]["run_id"]
        for version in await self._list_versions(name, run_id):
            body = {"name": name, "version": version}
            await self._call("DELETE", "model-versions/delete", body, fine=_MISSING)
        await self._end(run_id, "FAILED", None)

    async def has_version(self, name: str, version: str) -> bool:
        """Return whether a registered model has a version."""
        query = {"name": name, "version": version}
        return bool(await self._call("GET", "model-versions/get", query, fine=_MISSING))

    async def close(self) -> None:
        """Close the connections."""
        if self._made is not None:
            await self._made.aclose()

    async def _find_experiment(self, name: str) -> str:
        query = {"filter": f"tags.`{NAME_TAG}` = '{name}'", "view_type": "ALL", "max_results": 10}
        found = (await self._call("POST", "experiments/search", query)).get("experiments", [])
        live = [each["experiment_id"] for each in found if each["lifecycle_stage"] == "active"]
        if live:
            return str(min(live, key=int))
        if found:
            raise GoneError(f"the experiment of the instance was deleted in MLflow ({name})")
        raise UnreachableError(f"MLflow has no experiment of the instance yet ({name})")

    async def _find_run(self, experiment_id: str, debt: Debt) -> Any:
        """Return the run in MLflow that has the run's tag, or None; of twins the oldest stays."""
        query = {
            "experiment_ids": [experiment_id],
            "filter": f"tags.`{RUN_TAG}` = '{debt.run_id}'",
            "run_view_type": "ACTIVE_ONLY",
            "max_results": 10,
        }
        found = (await self._call("POST", "runs/search", query)).get("runs", [])
        found.sort(key=lambda run: (int(run["info"]["start_time"]), run["info"]["run_id"]))
        for twin in found[1:]:
            await self._call("POST", "runs/delete", {"run_id": twin["info"]["run_id"]}, fine=_MISSING)
        return found[0] if found else None

    async def _create_run(self, experiment_id: str, debt: Debt) -> Any:
        tags = {**debt.payload["tags"], RUN_TAG: debt.run_id}
        body = {
            "experiment_id": experiment_id,
            "run_name": debt.payload["run_name"],
            "start_time": debt.payload["start_time"],
            "tags": [{"key": key, "value": value} for key, value in tags.items()],
        }
        await self._call("POST", "runs/create", body)
        # An earlier attempt may have come through meanwhile.
        found = await self._find_run(experiment_id, debt)
        if found is None:
            raise UnreachableError("MLflow does not find the run that it has made")
        return found

    async def _log(self, run_id: str, payload: Mapping[str, Any]) -> None:
        params = [{"key": key, "value": value} for key, value in payload["params"].items()]
        for start in range(0, len(params), _BATCH):
            await self._call(
                "POST", "runs/log-batch", {"run_id": run_id, "params": params[start : start + _BATCH]}
            )
        now = payload["start_time"]
        metrics = [
            {"key": key, "value": value, "timestamp": now, "step": 0}
            for key, value in payload["metrics"].items()
        ]
        for start in range(0, len(metrics), _MOST):
            await self._call(
                "POST", "runs/log-batch", {"run_id": run_id, "metrics": metrics[start : start + _MOST]}
            )

    async def _upload(self, artifact_uri: str, debt: Debt) -> str:
        """Upload the files, where the server takes any; return where the model lies."""
        if not artifact_uri.startswith(_UPLOADED):
            return next(iter(debt.files.values()))  # MLflow keeps artifacts where only its own clients write
        place = artifact_uri.removeprefix(_UPLOADED).lstrip("/")
        for upload in await asyncio.to_thread(debt.list_files):
            await self._put(f"api/2.0/mlflow-artifacts/artifacts/{place}/{upload.name}", upload)
        return f"{artifact_uri}/model"

    async def _put(self, path: str, upload: WrittenFile) -> None:
        file = await asyncio.to_thread(upload.open)

        async def read() -> AsyncIterator[bytes]:
            while content := await asyncio.to_thread(file.read, _CHUNK):
                yield content

        try:
            async with asyncio.timeout(
                _UPLOAD_FACTOR * self._settings.mlflow_timeout_seconds + upload.size / _CHUNK
            ):
                answer = await self._client.put(
                    quote(path), content=read(), headers={"content-length": str(upload.size)}
                )
        except (httpx.HTTPError, TimeoutError) as error:
            raise UnreachableError(f"MLflow does not answer: {describe_error(error)}") from error
        finally:
            file.close()
        _check(answer)

    async def _find_version(self, name: str, run_id: str) -> str:
        """Return the version that a run was registered as; of twins the first stays."""
        versions = await self._list_versions(name, run_id)
        for twin in versions[1:]:
            body = {"name": name, "version": twin}
            await self._call("DELETE", "model-versions/delete", body, fine=_MISSING)
        return versions[0] if versions else ""

    async def _list_versions(self, name: str, run_id: str) -> list[str]:
        query = {"filter": f"name = '{name}' and run_id = '{run_id}'", "max_results": 100}
        found = await self._call("GET", "model-versions/search", query)
        return sorted((str(each["version"]) for each in found.get("model_versions", [])), key=int)

    async def _register(self, name: str, run_id: str, source: str, debt: Debt) -> str:
        await self._call("POST", "registered-models/create", {"name": name}, fine=_EXISTS)
        tags = [{"key": RUN_TAG, "value": debt.run_id}]
        body = {"name": name, "source": source, "run_id": run_id, "tags": tags}
        made = await self._call("POST", "model-versions/create", body)
        return str(made["model_version"]["version"])

    async def _end(self, run_id: str, status: str, end_time: int | None) -> None:
        ended = end_time or int(time.time() * 1000)
        await self._call("POST", "runs/update", {"run_id": run_id, "status": status, "end_time": ended})

    @property
    def _client(self) -> httpx.AsyncClient:
        if self._made is None:
            settings = self._settings
            has_user = bool(settings.mlflow_username)
            self._made = httpx.AsyncClient(
                base_url=settings.mlflow_url.rstrip("/") + "/",
                timeout=settings.mlflow_timeout_seconds,
                headers={"authorization": f"Bearer {settings.mlflow_token}"} if settings.mlflow_token else {},
                auth=(settings.mlflow_username, settings.mlflow_password) if has_user else None,
                trust_env=False,
                verify=settings.https_context(),
            )
        return self._made

    async def _call(self, method: str, path: str, content: Mapping[str, Any], *, fine: str = "") -> Any:
        """Call MLflow; return the answer's JSON, or nothing if it refuses with the one code that is fine."""
        place = f"api/2.0/mlflow/{path}"
        try:
            if method == "GET":
                answer = await self._client.request(method, place, params=content)
            else:
                answer = await self._client.request(method, place, json=content)
        except httpx.HTTPError as error:
            raise UnreachableError(f"MLflow does not answer: {describe_error(error)}") from error
        if fine and _read_code(answer) == fine:
            return {}
        _check(answer)
        try:
            return answer.json()
        except ValueError as error:
            raise UnreachableError(f"the answer does not come from MLflow: {answer.text[:200]}") from error


def _check(answer: httpx.Response) -> None:
    if answer.is_success:
        return
    text = f"MLflow refuses: {answer.status_code}: {answer.text[:500]}"
    if answer.is_client_error and answer.status_code not in _OF_ALL_CALLS:
        raise RefusedError(text)
    raise UnreachableError(text)


def _read_code(answer: httpx.Response) -> str:
    with contextlib.suppress(ValueError):
        content = answer.json()
        if isinstance(content, dict):
            return str(content.get("error_code", ""))
    return ""
