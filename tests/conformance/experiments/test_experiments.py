"""What every implementation of the port `Experiments` does, the real server and the fake alike."""

from __future__ import annotations

import asyncio
import json
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest

from devstack import ports
from instance_service import mlflow_adapter
from instance_service.mlflow_adapter import MlflowExperiments
from instance_service.ports import Experiment, Experiments, OutsideUnavailableError
from optaic.rules.counterparts import counterpart_name
from servicekit.ids import new_id
from support.guarded import JSON, Answer, Asked, answering, guarded
from support.mlflow_api import mlflow_api

if TYPE_CHECKING:
    from collections.abc import Mapping

    import httpx

    from conformance.experiments.conftest import Ground


INSTALLATION = new_id()


def _experiment(installation_id: str = INSTALLATION) -> Experiment:
    instance_id = new_id()
    name = counterpart_name("default", instance_id)
    return Experiment(name, f"alpha.{instance_id}", installation_id=installation_id)


async def _all(experiments: Experiments, installation_id: str = INSTALLATION) -> dict[str, Experiment]:
    return {found.name: found async for page in experiments.pages(installation_id) for found in page}


async def test_an_ensured_object_is_found_as_desired(ground: Ground) -> None:
    await ground.experiments.ping()
    desired = [_experiment() for _ in range(3)]
    ensured = await ground.experiments.ensure(desired)
    assert set(ensured.ids) == {one.name for one in desired}
    assert len(set(ensured.ids.values())) == 3
    found = await _all(ground.experiments)
    assert [found[one.name] for one in desired] == desired
    assert await ground.experiments.ensure(desired) == ensured


async def test_another_title_keeps_the_id(ground: Ground) -> None:
    desired = _experiment()
    first = await ground.experiments.ensure([desired])
    renamed = replace(desired, title=f"beta.{desired.title}")
    assert await ground.experiments.ensure([renamed]) == first
    assert (await _all(ground.experiments))[desired.name] == renamed


async def test_each_installation_finds_its_own_and_adopts_by_name(ground: Ground) -> None:
    other = new_id()
    ours, theirs = _experiment(), _experiment(other)
    ids = (await ground.experiments.ensure([ours, theirs])).ids
    found = await _all(ground.experiments)
    assert found[ours.name] == ours
    assert theirs.name not in found
    assert await _all(ground.experiments, other) == {theirs.name: theirs}
    adopted = replace(theirs, installation_id=INSTALLATION)
    assert (await ground.experiments.ensure([adopted])).ids == {theirs.name: ids[theirs.name]}
    assert (await _all(ground.experiments))[theirs.name] == adopted
    assert not await _all(ground.experiments, other)


async def test_a_champion_is_set_moved_and_taken(ground: Ground) -> None:
    desired = _experiment()
    (experiment_id,) = (await ground.experiments.ensure([desired])).ids.values()
    versions = [await ground.register(desired.name, experiment_id) for _ in range(2)]
    for champion in (*versions, versions[0], ""):
        wanted = replace(desired, champion=champion)
        assert not (await ground.experiments.ensure([wanted])).refusals
        assert (await _all(ground.experiments))[desired.name] == wanted


async def test_a_missing_champion_is_refused_without_affecting_other_experiments(ground: Ground) -> None:
    desired, other = replace(_experiment(), champion="7"), _experiment()
    ensured = await ground.experiments.ensure([desired, other])
    assert set(ensured.refusals) == {desired.name}
    assert other.name in ensured.ids


async def test_a_restored_experiment_has_its_runs(ground: Ground) -> None:
    desired = _experiment()
    first = await ground.experiments.ensure([desired])
    assert not await ground.experiments.delete([desired.name, "default.0"])
    assert not await ground.experiments.delete([desired.name])
    assert desired.name not in await _all(ground.experiments)
    assert await ground.experiments.ensure([desired]) == first
    assert desired.name in await _all(ground.experiments)


async def test_a_version_has_its_runs_metrics(ground: Ground) -> None:
    desired = _experiment()
    (experiment_id,) = (await ground.experiments.ensure([desired])).ids.values()
    version = await ground.register(desired.name, experiment_id)
    found = await ground.experiments.find_version(desired.name, version)
    assert found is not None
    assert (found.is_ready, dict(found.metrics)) == (True, {"rmse": 0.5})
    assert found.run_id
    # None but the registry's own spelling: another one for the same number would never be what it answers.
    for unknown in ("99", "none", "", "0", "01", "+1", "1 ", "\u0661", "99999999999999999999"):
        assert await ground.experiments.find_version(desired.name, unknown) is None
    assert await ground.experiments.find_version("default.0", "1") is None


async def test_only_wanted_experiments_are_read_among_many_of_the_same_age(
    mlflow_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(mlflow_adapter, "_PAGE", 5)  # as if there were thousands
    installation = new_id()
    old_id = f"00{new_id()[2:]}"
    old = Experiment(counterpart_name("default", old_id), f"alpha.{old_id}", "", installation)
    desired = [old, *(_experiment(installation) for _ in range(40))]
    adapter = MlflowExperiments(mlflow_url, 60)
    ensured = await adapter.ensure(desired)
    assert len(set(ensured.ids.values())) == len(desired)
    asked: list[str] = []
    send = adapter._send

    async def count(method: str, path: str, content: Mapping[str, Any] | None = None) -> httpx.Response:
        asked.append(path.rpartition("/")[2])
        return await send(method, path, content)

    monkeypatch.setattr(adapter, "_send", count)
    two = await adapter.ensure([desired[-1], old])
    assert two.ids == {one.name: ensured.ids[one.name] for one in (desired[-1], old)}
    assert asked.count("search") == len(asked) <= 6  # of each kind once in vain, then by name
    assert await adapter.ensure(desired) == ensured
    assert set(asked) == {"search"}, "nothing was repaired"
    assert await _all(adapter, installation) == {one.name: one for one in desired}
    await adapter.delete([one.name for one in desired])
    assert not await _all(adapter, installation)
    await adapter.close()


async def test_an_empty_batch_makes_no_call(ground: Ground) -> None:
    assert not (await ground.experiments.ensure([])).ids
    await ground.experiments.delete([])


async def test_twins_make_one_experiment(mlflow_url: str) -> None:
    adapters = [MlflowExperiments(mlflow_url, 60) for _ in range(4)]
    desired = _experiment()
    answers = await asyncio.gather(*(adapter.ensure([desired]) for adapter in adapters))
    assert len({answer.ids[desired.name] for answer in answers}) == 1
    async with mlflow_api(mlflow_url) as api:
        assert len(await api.live(desired.title)) == 1
    for adapter in adapters:
        await adapter.close()


async def test_a_foreign_edit_is_seen_and_repaired(mlflow_url: str) -> None:
    adapter = MlflowExperiments(mlflow_url, 60)
    desired = _experiment()
    first = await adapter.ensure([desired])
    experiment_id = first.ids[desired.name]
    async with mlflow_api(mlflow_url) as api:
        await api.call("POST", "experiments/update", experiment_id=experiment_id, new_name=new_id())
        assert (await _all(adapter))[desired.name] != desired
        assert await adapter.ensure([desired]) == first
        body = {"experiment_id": experiment_id, "key": "optaic.name", "value": "nobody"}
        await api.call("POST", "experiments/set-experiment-tag", **body)
        assert desired.name not in await _all(adapter)
        assert await adapter.ensure([desired]) == first  # by its name
        assert (await _all(adapter))[desired.name] == desired
    await adapter.close()


@pytest.mark.parametrize(
    ("header", "credentials"),
    [
        ("Bearer secret", {"token": "secret"}),
        ("Basic dXNlcjpzZWNyZXQ=", {"username": "user", "password": "secret"}),
        ("Basic dXNlcjpzZWNyZXQ=", {"username": "user", "password": "secret", "token": "other"}),
    ],
)
async def test_a_server_with_authentication_gets_credentials_and_has_its_own_error(
    header: str, credentials: dict[str, Any]
) -> None:
    async with guarded(header, "{}") as url:
        adapter = MlflowExperiments(url, 2, **credentials)
        assert not await _all(adapter)
        await adapter.close()
        refused_credentials: list[dict[str, Any]] = [
            {},
            {"token": "wrong"},
            {"username": "user", "password": "wrong"},
        ]
        for wrong in refused_credentials:
            adapter = MlflowExperiments(url, 2, **wrong)
            with pytest.raises(OutsideUnavailableError) as refused:
                await adapter.ensure([_experiment()])
            assert refused.value.reason == "MlflowUnauthorized"
            await adapter.close()


async def test_one_that_is_forbidden_is_refused_alone() -> None:
    forbidden, allowed = _experiment(), _experiment()

    def answer(asked: Asked) -> Answer:
        if forbidden.name in asked.body and asked.path.endswith("/create"):
            return Answer("{}", 403)
        return Answer('{"experiment_id": "1"}')

    async with answering(answer) as url:
        adapter = MlflowExperiments(url, 2)
        ensured = await adapter.ensure([forbidden, allowed])
        await adapter.close()
    assert set(ensured.ids) == {allowed.name}
    assert "OPTAIC_MLFLOW_TOKEN" in ensured.refusals[forbidden.name]


async def test_one_that_may_not_be_removed_is_refused_alone() -> None:
    forbidden, allowed = _experiment(), _experiment()
    stored = {
        str(number): {
            "experiment_id": str(number),
            "name": one.title,
            "lifecycle_stage": "active",
            "tags": [{"key": "optaic.name", "value": one.name}],
        }
        for number, one in enumerate((forbidden, allowed))
    }

    def answer(asked: Asked) -> Answer:
        if asked.path.endswith("/delete"):
            experiment_id = json.loads(asked.body)["experiment_id"]
            if experiment_id == "0":
                return Answer("{}", 403)
            del stored[experiment_id]
        return Answer(json.dumps({"experiments": [*stored.values()]}))

    async with answering(answer) as url:
        adapter = MlflowExperiments(url, 2)
        refusals = await adapter.delete([forbidden.name, allowed.name])
        await adapter.close()
    assert set(refusals) == {forbidden.name}
    assert "OPTAIC_MLFLOW_TOKEN" in refusals[forbidden.name]
    assert set(stored) == {"0"}


async def test_a_caller_without_permission_gets_an_error() -> None:
    async with answering(lambda _: Answer("{}", 403)) as url:
        adapter = MlflowExperiments(url, 2)
        for call in (adapter.ensure([_experiment()]), adapter.delete(["default.0"])):
            with pytest.raises(OutsideUnavailableError) as refused:
                await call
            assert refused.value.reason == "MlflowUnauthorized"
        await adapter.close()


@pytest.mark.parametrize(
    "answer",
    [
        Answer("<html>log in</html>", type="text/html"),
        Answer("", 404, ""),
        Answer("{", 400, JSON),
        Answer("[]", 400, JSON),
        Answer("<html>", 500, "text/html"),
    ],
)
async def test_an_answer_that_is_not_from_mlflow_is_unavailable(answer: Answer) -> None:
    async with answering(lambda _: answer) as url:
        adapter = MlflowExperiments(url, 2)
        calls = (
            adapter.ensure([_experiment()]),
            adapter.delete(["default.0"]),
            _all(adapter),
            adapter.find_version("default.0", "1"),
        )
        for call in calls:
            with pytest.raises(OutsideUnavailableError):
                await call
        await adapter.close()


async def test_a_server_that_is_down_is_unavailable() -> None:
    adapter = MlflowExperiments(f"http://127.0.0.1:{ports.find_free()}", 2)
    calls = (
        adapter.ping(),
        adapter.ensure([_experiment()]),
        adapter.delete(["default.0"]),
        _all(adapter),
        adapter.find_version("default.0", "1"),
    )
    for call in calls:
        with pytest.raises(OutsideUnavailableError) as refused:
            await call
        assert refused.value.reason == "MlflowUnavailable"
    await adapter.close()
