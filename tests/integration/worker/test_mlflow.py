"""What a training gives MLflow, on a real server: one run, whatever happened on the way, and one registered version."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import mlflow.sklearn
import pytest

from instance_service.mlflow_adapter import MlflowExperiments
from instance_service.ports import Experiment
from optaic.plugins import InputTable
from optaic.rules.counterparts import RUN_TAG, counterpart_name
from servicekit.ids import new_id
from support.mlflow_api import MlflowApi, mlflow_api
from support.panels import CONFIG, make_prices
from worker.builtin.ml_modules import RidgeModule
from worker.config import Settings
from worker.telemetry.debts import Debt, Delivered, GoneError, UnreachableError
from worker.telemetry.mlflow_adapter import MlflowDeliverer
from worker.telemetry.registry import has_version
from worker.training import TrainingSettings, build_rows, train
from worker.training.mlflow_format import save_for_mlflow

TENANT = "default"


def _settings(url: str) -> Settings:
    return Settings(
        instance_address="127.0.0.1:1",
        run_address="127.0.0.1:1",
        executor_token="unused",
        data_root="/unused",
        mlflow_url=url,
        mlflow_timeout_seconds=60,
    )


@pytest.fixture
async def deliverer(mlflow_url: str) -> AsyncIterator[MlflowDeliverer]:
    made = MlflowDeliverer(_settings(mlflow_url))
    yield made
    await made.close()


@pytest.fixture
async def api(mlflow_url: str) -> AsyncIterator[MlflowApi]:
    async with mlflow_api(mlflow_url) as client:
        yield client


@pytest.fixture
async def experiment(mlflow_url: str) -> AsyncIterator[Experiment]:
    """The experiment of an instance, as instance-service makes it."""
    instance_id = new_id()
    made = Experiment(counterpart_name(TENANT, instance_id), f"model.{instance_id}", installation_id=new_id())
    experiments = MlflowExperiments(mlflow_url, 60)
    await experiments.ensure([made])
    yield made
    await experiments.close()


def _debt(experiment: Experiment, folder: Path) -> Debt:
    """A small debt whose model is the one file of a folder."""
    (folder / "model").mkdir(exist_ok=True)
    (folder / "model" / "MLmodel").write_text("flavors: {}\n")
    payload = {
        "experiment": experiment.name,
        "run_name": "training 1",
        "start_time": 1_700_000_000_000,
        "end_time": 1_700_000_001_000,
        "params": {f"p{number}": str(number) for number in range(150)},
        "metrics": {"validation_rmse": 0.5, "importance.week": -0.25},
        "tags": {"optaic.train_end": "2024-01-02"},
    }
    _, instance_id = experiment.name.split(".")
    files = {"model": str(folder / "model")}
    return Debt(TENANT, instance_id, new_id(), "mlflow", "token", payload, files)


async def _runs(api: MlflowApi, experiment: Experiment) -> list[Any]:
    found = await api.call("POST", "experiments/search", filter=f"name = '{experiment.title}'", max_results=5)
    (one,) = found["experiments"]
    answer = await api.call("POST", "runs/search", experiment_ids=[one["experiment_id"]], max_results=50)
    return list(answer.get("runs", []))


async def _versions(api: MlflowApi, experiment: Experiment) -> list[Any]:
    query = {"filter": f"name = '{experiment.name}'", "max_results": 50}
    return list((await api.call("GET", "model-versions/search", **query)).get("model_versions", []))


async def test_a_training_is_one_run_with_a_registered_version(
    deliverer: MlflowDeliverer, api: MlflowApi, experiment: Experiment, tmp_path: Path
) -> None:
    debt = _debt(experiment, tmp_path)
    first = await deliverer.deliver(debt)
    assert await deliverer.deliver(debt) == first
    (run,) = await _runs(api, experiment)
    (version,) = await _versions(api, experiment)
    assert first == Delivered(run["info"]["run_id"], version["version"])
    assert (run["info"]["status"], run["info"]["end_time"]) == ("FINISHED", 1_700_000_001_000)
    data = run["data"]
    assert len(data["params"]) == 150
    assert {metric["key"]: metric["value"] for metric in data["metrics"]} == debt.payload["metrics"]
    tags = {tag["key"]: tag["value"] for tag in data["tags"]}
    assert (tags[RUN_TAG], tags["optaic.train_end"]) == (debt.run_id, "2024-01-02")
    assert version["run_id"] == run["info"]["run_id"]
    files = await api.call("GET", "artifacts/list", run_id=run["info"]["run_id"])
    assert [(file["path"], file["is_dir"]) for file in files["files"]] == [("model", True)]


async def test_the_registry_says_whether_it_has_a_version(
    deliverer: MlflowDeliverer, api: MlflowApi, experiment: Experiment, tmp_path: Path, mlflow_url: str
) -> None:
    settings = _settings(mlflow_url)
    assert await has_version(settings, experiment.name, "1") is False, "no such model yet"
    version = (await deliverer.deliver(_debt(experiment, tmp_path))).model_version
    assert await has_version(settings, experiment.name, version) is True
    assert await has_version(settings, experiment.name, "99") is False
    await api.call("DELETE", "model-versions/delete", name=experiment.name, version=version)
    assert await has_version(settings, experiment.name, version) is False
    assert await has_version(_settings("http://127.0.0.1:9"), experiment.name, version) is None


@pytest.mark.parametrize("broken", ["_log", "_upload", "_find_version", "_register", "_end"])
async def test_a_delivery_that_broke_off_is_completed_and_not_repeated(
    broken: str,
    deliverer: MlflowDeliverer,
    api: MlflowApi,
    experiment: Experiment,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    debt = _debt(experiment, tmp_path)

    async def fail(*_: Any) -> Any:
        raise UnreachableError("the worker dies")

    with monkeypatch.context() as patch:
        patch.setattr(deliverer, broken, fail)
        with pytest.raises(UnreachableError):
            await deliverer.deliver(debt)
    found = await deliverer.deliver(debt)
    (run,), (version,) = await _runs(api, experiment), await _versions(api, experiment)
    assert found == Delivered(run["info"]["run_id"], version["version"])
    assert run["info"]["status"] == "FINISHED"


async def test_of_twins_one_run_stays(
    deliverer: MlflowDeliverer, api: MlflowApi, experiment: Experiment, tmp_path: Path
) -> None:
    debt = _debt(experiment, tmp_path)
    await deliverer.deliver(debt)
    (run,) = await _runs(api, experiment)
    twin = {"experiment_id": run["info"]["experiment_id"], "start_time": 1_800_000_000_000}
    await api.call("POST", "runs/create", **twin, tags=[{"key": RUN_TAG, "value": debt.run_id}])
    assert (await deliverer.deliver(debt)).mlflow_run_id == run["info"]["run_id"]
    assert len(await _runs(api, experiment)) == 1


async def test_another_training_of_the_instance_is_another_version(
    deliverer: MlflowDeliverer, api: MlflowApi, experiment: Experiment, tmp_path: Path
) -> None:
    found = [await deliverer.deliver(_debt(experiment, tmp_path)) for _ in range(2)]
    assert [each.model_version for each in found] == ["1", "2"]
    assert len({each.mlflow_run_id for each in found}) == 2
    assert len(await _runs(api, experiment)) == 2


async def test_what_a_failed_training_was_given_is_withdrawn(
    deliverer: MlflowDeliverer, api: MlflowApi, experiment: Experiment, tmp_path: Path
) -> None:
    debt = _debt(experiment, tmp_path)
    await deliverer.deliver(debt)
    for _ in range(2):
        await deliverer.withdraw(debt)
    (run,) = await _runs(api, experiment)
    assert run["info"]["status"] == "FAILED"
    assert await _versions(api, experiment) == []
    await deliverer.withdraw(_debt(experiment, tmp_path))


async def test_an_experiment_that_was_deleted_takes_nothing_any_more(
    deliverer: MlflowDeliverer, mlflow_url: str, experiment: Experiment, tmp_path: Path
) -> None:
    missing = Experiment(counterpart_name(TENANT, new_id()), "missing", installation_id=new_id())
    with pytest.raises(UnreachableError, match="no experiment of the instance yet"):
        await deliverer.deliver(_debt(missing, tmp_path))
    experiments = MlflowExperiments(mlflow_url, 60)
    await experiments.delete([experiment.name])
    await experiments.close()
    with pytest.raises(GoneError, match="was deleted in MLflow"):
        await deliverer.deliver(_debt(experiment, tmp_path))


@pytest.mark.filterwarnings("ignore::UserWarning")  # of MLflow about types of its own
async def test_a_registered_model_can_be_loaded_by_its_version(
    deliverer: MlflowDeliverer, mlflow_url: str, experiment: Experiment, tmp_path: Path
) -> None:
    prices = make_prices()
    tables = [InputTable("features", "prices", lambda: prices)]
    rows = build_rows(CONFIG, tables, tables, {}, {})
    trained = train(lambda: RidgeModule(CONFIG), rows, TrainingSettings(), 3)
    debt = _debt(experiment, tmp_path)
    assert save_for_mlflow(trained.module, rows, tmp_path / "saved") == ""
    files = {"model": str(tmp_path / "saved")}
    debt = Debt(TENANT, debt.instance_id, debt.run_id, "mlflow", "token", debt.payload, files)
    version = (await deliverer.deliver(debt)).model_version
    mlflow.set_tracking_uri(mlflow_url)
    try:
        loaded = mlflow.sklearn.load_model(f"models:/{experiment.name}/{version}")
    finally:
        mlflow.set_tracking_uri("")
    features = rows.table.select(rows.features).drop_nulls()
    assert (
        loaded.predict(features.to_numpy()).tolist()
        == trained.module.predict(features)["prediction"].to_list()
    )
