"""The adapter for MLflow's experiments and model registry, over its REST API; only this file knows MLflow."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import re
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeAlias

import httpx

from instance_service.ports import Ensured, Experiment, ModelVersion, OutsideUnavailableError
from optaic.plugins.words import describe_error
from optaic.rules.counterparts import NAME_TAG, RUN_TAG

CHAMPION = "champion"
_INSTALLATION = "optaic.installation"
_VERSION = re.compile("[1-9][0-9]{0,8}")
_PAGE = 1000
_CONCURRENCY = 4
_JSON = dict[str, Any]
_Search: TypeAlias = Callable[
    [str, str], Awaitable[_JSON]
]  # arguments: the prefix of names and the page token
_MISSING = "RESOURCE_DOES_NOT_EXIST"
_EXISTS = "RESOURCE_ALREADY_EXISTS"
_CREDENTIALS = "OPTAIC_MLFLOW_TOKEN or _USERNAME"


@dataclass(frozen=True)
class _Found:
    """An experiment as MLflow has it."""

    id: str
    observed: Experiment
    is_archived: bool


class MlflowExperiments:
    """The port `Experiments` on one MLflow server."""

    def __init__(
        self,
        url: str,
        timeout_seconds: float,
        *,
        token: str = "",
        username: str = "",
        password: str = "",
        certificates: ssl.SSLContext | bool = True,
    ) -> None:
        self._client = httpx.AsyncClient(
            base_url=url.rstrip("/") + "/",
            timeout=timeout_seconds,
            headers={"authorization": f"Bearer {token}"} if token else {},
            auth=(username, password) if username else None,
            limits=httpx.Limits(max_connections=2 * _CONCURRENCY),
            trust_env=False,
            verify=certificates,
        )
        self._slots = asyncio.Semaphore(_CONCURRENCY)

    async def close(self) -> None:
        """Close the connections."""
        await self._client.aclose()

    async def ping(self) -> None:
        """Check that MLflow answers; see the port."""
        await self._send("GET", "health")

    async def ensure(self, desired: Sequence[Experiment]) -> Ensured:
        """Create, restore or repair experiments; see the port. Experiments of similar age need two reads in all."""
        ensured = Ensured()
        known = await self._find([experiment.name for experiment in desired])
        repairs = []
        for experiment in desired:
            found = known[experiment.name]
            if len(found) == 1 and not found[0].is_archived and found[0].observed == experiment:
                ensured.ids[experiment.name] = found[0].id
            else:
                repairs.append(self._repair(experiment, found, ensured))
        # Not a task group: its callers would get a group of errors, and one refusal would cancel the others.
        for problem in await asyncio.gather(*repairs, return_exceptions=True):
            if problem is not None:
                raise problem
        return ensured

    async def delete(self, names: Sequence[str]) -> dict[str, str]:
        """Archive experiments and take their champions' alias; see the port."""
        refusals = {}
        for name, found in (await self._find(names)).items():
            try:
                await self._archive(name, found)
            except _RefusedError as error:
                refusals[name] = error.message
        return refusals

    async def pages(self, installation_id: str) -> AsyncIterator[Sequence[Experiment]]:
        """Yield every experiment of an installation that is not archived; see the port."""
        champions = _aliases(await self._read([""], self._search_models))
        condition, token = f"tags.`{_INSTALLATION}` = '{installation_id}'", ""
        while True:
            answer = await self._search(condition, "ACTIVE_ONLY", token)
            page = map(_found, answer.get("experiments", []))
            yield [_with_champion(one, champions).observed for one in page]
            token = answer.get("next_page_token", "")
            if not token:
                return

    async def find_version(self, name: str, version: str) -> ModelVersion | None:
        """Return a model version with its run's metrics; see the port."""
        query = {"name": name, "version": version}
        # Only such versions exist. MLflow accepts other spellings of a number ("01"), but never answers with them.
        found = (
            await self._call("GET", "model-versions/get", query, fine=_MISSING)
            if _VERSION.fullmatch(version)
            else None
        )
        if found is None:
            return None
        run_id = found["model_version"].get("run_id", "")
        run = await self._call("GET", "runs/get", {"run_id": run_id}, fine=_MISSING) if run_id else None
        data = run["run"]["data"] if run else {}
        tags = {tag["key"]: tag["value"] for tag in data.get("tags", [])}
        return ModelVersion(
            is_ready=found["model_version"].get("status", "READY") == "READY",
            run_id=run_id,
            metrics={metric["key"]: float(metric["value"]) for metric in data.get("metrics", [])},
            training_run_id=tags.get(RUN_TAG, ""),
        )

    async def _find(self, names: Sequence[str]) -> dict[str, list[_Found]]:
        """Return all experiments with these names, the one to use first."""
        found: dict[str, list[_Found]] = {name: [] for name in sorted(names)}
        if not found:
            return found
        wanted = list(found)
        champions = _aliases(await self._read(wanted, self._search_models))
        answers = await self._read(wanted, self._search_by_name)
        # By id: a new experiment may shift another to the next page, which must not count as a second one.
        items = {item["experiment_id"]: item for answer in answers for item in answer.get("experiments", [])}
        for one in map(_found, items.values()):
            if one.observed.name in found:
                found[one.observed.name].append(_with_champion(one, champions))
        for group in found.values():
            group.sort(key=lambda one: (one.is_archived, int(one.id)))
        return found

    async def _read(self, names: Sequence[str], search: _Search) -> list[_JSON]:
        """Return MLflow's pages of everything with these sorted names; they may contain other names too.

        MLflow searches by a prefix of names, not by a list. Ids begin with their creation time, so the names of a batch
        usually share a long prefix. If more than one page has the prefix, as for an old and a new instance together,
        the names are split by the next character and each part is read separately.
        """
        answers, token, prefix = [], "", _common_prefix(names[0], names[-1])
        while True:
            answer = await search(prefix, token)
            token = answer.get("next_page_token", "")
            if token and len(names) > 1:
                parts = itertools.groupby(names, key=lambda name: name[: len(prefix) + 1])
                return [answer for _, part in parts for answer in await self._read([*part], search)]
            answers.append(answer)
            if not token:
                return answers

    async def _search_by_name(self, prefix: str, token: str) -> _JSON:
        return await self._search(f"tags.`{NAME_TAG}` LIKE '{prefix}%'", "ALL", token)

    async def _search(self, condition: str, view: str, token: str) -> _JSON:
        query = {"filter": condition, "view_type": view, "max_results": _PAGE, "page_token": token}
        answer: _JSON = await self._call("POST", "experiments/search", query)
        return answer

    async def _search_models(self, prefix: str, token: str) -> _JSON:
        query = {"filter": f"name LIKE '{prefix}%'", "max_results": _PAGE, "page_token": token}
        answer: _JSON = await self._call("GET", "registered-models/search", query)
        return answer

    async def _repair(self, desired: Experiment, found: Sequence[_Found], ensured: Ensured) -> None:
        async with self._slots:
            try:
                one = found[0] if found else await self._create(desired)
                if one.is_archived:
                    await self._call("POST", "experiments/restore", {"experiment_id": one.id})
                if one.observed.title != desired.title:
                    body = {"experiment_id": one.id, "new_name": desired.title}
                    await self._call("POST", "experiments/update", body)
                for key, value in _tags(desired).items() - _tags(one.observed).items():
                    body = {"experiment_id": one.id, "key": key, "value": value}
                    await self._call("POST", "experiments/set-experiment-tag", body)
                for twin in found[1:]:
                    if not twin.is_archived:
                        await self._call("POST", "experiments/delete", {"experiment_id": twin.id})
                ensured.ids[desired.name] = one.id
                if one.observed.champion != desired.champion:
                    await self._set_champion(desired.name, desired.champion)
            except _RefusedError as error:
                ensured.refusals[desired.name] = error.message

    async def _archive(self, name: str, found: Sequence[_Found]) -> None:
        for one in found:
            if not one.is_archived:
                await self._call("POST", "experiments/delete", {"experiment_id": one.id}, fine=_MISSING)
        if found and found[0].observed.champion:
            await self._set_champion(name, "")

    async def _create(self, desired: Experiment) -> _Found:
        tags = [{"key": key, "value": value} for key, value in _tags(desired).items()]
        created = await self._call(
            "POST", "experiments/create", {"name": desired.title, "tags": tags}, fine=_EXISTS
        )
        if created is not None:
            return _Found(created["experiment_id"], replace(desired, champion=""), is_archived=False)
        # A concurrent call created it, or it lost its tag.
        answer = await self._call("GET", "experiments/get-by-name", {"experiment_name": desired.title})
        found = _found(answer["experiment"])
        champion = _aliases(await self._read([desired.name], self._search_models)).get(desired.name, "")
        return replace(found, observed=replace(found.observed, champion=champion))

    async def _set_champion(self, name: str, version: str) -> None:
        body = {"name": name, "alias": CHAMPION, "version": version}
        if version:
            await self._call("POST", "registered-models/alias", body)
        else:
            del body["version"]
            await self._call("DELETE", "registered-models/alias", body, fine=_MISSING)

    async def _call(self, method: str, path: str, content: Mapping[str, Any], *, fine: str = "") -> Any:
        """Call MLflow and return the answer's JSON, or None if it refuses with the one code that is fine."""
        response = await self._send(method, f"api/2.0/mlflow/{path}", content)
        if response.is_success:
            return _read_json(response)
        text = response.text[:500]
        if response.status_code == httpx.codes.UNAUTHORIZED:
            message = f"MLflow does not accept {_CREDENTIALS}: {response.status_code}: {text}"
            raise OutsideUnavailableError("MlflowUnauthorized", message)
        if (
            response.status_code == httpx.codes.FORBIDDEN
        ):  # it concerns one experiment and not the others of the batch
            message = f"MLflow does not allow this call with {_CREDENTIALS}: {response.status_code}: {text}"
            raise _RefusedError("MlflowUnauthorized", message)
        if response.is_client_error and response.status_code != httpx.codes.TOO_MANY_REQUESTS:
            if fine and _error_code(response) == fine:
                return None
            raise _RefusedError("MlflowRefused", f"{response.status_code}: {text}")
        raise OutsideUnavailableError("MlflowUnavailable", f"{response.status_code}: {text}")

    async def _send(self, method: str, path: str, content: Mapping[str, Any] | None = None) -> httpx.Response:
        try:
            if method == "GET":
                return await self._client.request(method, path, params=content)
            return await self._client.request(method, path, json=content)
        except httpx.HTTPError as error:
            text = f"MLflow does not answer: {describe_error(error)}"
            raise OutsideUnavailableError("MlflowUnavailable", text) from error


class _RefusedError(OutsideUnavailableError):
    """MLflow answers with a refusal; repeating the same call will not help."""


def _common_prefix(low: str, high: str) -> str:
    """Return the common prefix of two texts, which every text between them shares."""
    same = itertools.takewhile(lambda pair: pair[0] == pair[1], zip(low, high, strict=False))
    return "".join(one for one, _ in same)


def _aliases(answers: Iterable[_JSON]) -> dict[str, str]:
    """Return the version with the champion's alias for each registered model's name."""
    models = [model for answer in answers for model in answer.get("registered_models", [])]
    return {
        model["name"]: alias["version"]
        for model in models
        for alias in model.get("aliases", [])
        if alias["alias"] == CHAMPION
    }


def _read_json(response: httpx.Response) -> Any:
    try:
        return response.json()
    except ValueError as error:  # for example a proxy's page
        text = f"the answer does not come from MLflow, check its URL: {response.status_code}: {response.text[:500]}"
        raise OutsideUnavailableError("MlflowUnavailable", text) from error


def _error_code(response: httpx.Response) -> str:
    """Return MLflow's error code, or an empty text if another server answered in its place."""
    with contextlib.suppress(ValueError):
        content = response.json()
        if isinstance(content, dict):
            return str(content.get("error_code", ""))
    return ""


def _tags(experiment: Experiment) -> dict[str, str]:
    return {NAME_TAG: experiment.name, _INSTALLATION: experiment.installation_id}


def _found(item: _JSON) -> _Found:
    tags = {tag["key"]: tag["value"] for tag in item.get("tags", [])}
    observed = Experiment(tags.get(NAME_TAG, ""), item["name"], installation_id=tags.get(_INSTALLATION, ""))
    return _Found(item["experiment_id"], observed, is_archived=item["lifecycle_stage"] == "deleted")


def _with_champion(found: _Found, champions: Mapping[str, str]) -> _Found:
    champion = champions.get(found.observed.name, "")
    return replace(found, observed=replace(found.observed, champion=champion))
