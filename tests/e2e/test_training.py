"""A researcher trains a model: it is in MLflow under its name, the same training moves nothing, and it can be promoted."""

import datetime as dt
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import polars as pl
import pytest

from optaic.client import AsyncClient, word
from optaic.common.v1 import flow_pb2
from optaic.instance.v1 import instance_pb2
from optaic.rules.counterparts import RUN_TAG
from optaic.rules.locations import local_path
from optaic.run.v1 import run_pb2
from support.client import connected_client, create_dataset, create_project
from support.mlflow_api import MlflowApi
from support.polling import PATIENCE, eventually
from support.stack import RunningStack

SYMBOLS = ["AAPL", "AMD", "BAC", "CVX", "GE", "MSFT"]
PRICES = {"symbols": SYMBOLS, "start": "2018-01-02", "end": "2020-12-31"}
CONFIG = {
    "features": [
        {"name": "month", "expression": "PCT(close, 21)", "transforms": [{"name": "standardize"}]},
        {"name": "risk", "expression": "STD(PCT(close, 1), 21)"},
    ],
    "target": {"expression": "PCT(close, 5)", "horizon": 5},
}


@asynccontextmanager
async def logged_in(stack: RunningStack) -> AsyncIterator[MlflowApi]:
    user, _, password = stack.endpoints.mlflow_login.partition(":")
    async with httpx.AsyncClient(
        base_url=stack.endpoints.mlflow, auth=(user, password), timeout=30, trust_env=False
    ) as client:
        yield MlflowApi(client)


async def train(client: AsyncClient, model: instance_pb2.Instance, **fields: Any) -> run_pb2.Run:
    handle = await client.runs.submit(model, flow_kind="training", **fields)
    run: run_pb2.Run = await handle.wait(timeout=PATIENCE)
    assert run.status == run_pb2.RUN_STATUS_COMPLETED, run.error
    return run


async def wait_for(client: AsyncClient, model: instance_pb2.Instance, state: str, version: int) -> None:
    """Wait for the word and the version of the flow training."""

    async def is_there() -> bool:
        status = await client.status.get(model)
        (found,) = [each for each in status.flows if each.flow_kind == flow_pb2.FLOW_KIND_TRAINING]
        return (word(found, "status"), found.version) == (state, version)

    await eventually(is_there, PATIENCE, f"the training does not become {state} with version {version}")


def read_facts(run: run_pb2.Run) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(Path(local_path(run.artifacts["training"])).read_text())
    return found


async def test_a_model_is_trained_registered_and_promoted(stack: RunningStack) -> None:
    async with connected_client(stack) as client, logged_in(stack) as mlflow:
        project = await create_project(client, "training")
        prices = await create_dataset(client, project, "prices", "sp500_prices", PRICES)
        model = await client.instances.create(
            project=project,
            name="model",
            model={},
            definition_name="ridge",
            config={**CONFIG, "validation_share": 0.25, "embargo": 5},
            upstreams={"features": prices, "target": prices},
        )
        model = await client.instances.wait_until_active(model.instance_id, timeout=PATIENCE)
        assert (await (await client.runs.submit(prices)).wait(timeout=PATIENCE)).run_number == 1
        run = await train(client, model)
        assert list(run.telemetry_pending) == []
        await wait_for(client, model, "READY", 1)
        facts = read_facts(run)
        assert facts["label_end"] == "2020-12-31" > facts["train_end"] == run.training.train_end
        predicted = pl.read_parquet(local_path(run.artifacts["validation_predictions"]))
        assert predicted["date"].min() > dt.date(2020, 1, 1)  # type: ignore[operator] # there are rows
        (found,) = (
            await mlflow.call(
                "POST",
                "runs/search",
                experiment_ids=[model.model.mlflow_experiment_id],
                filter=f"tags.`{RUN_TAG}` = '{run.run_id}'",
            )
        )["runs"]
        assert (found["info"]["run_id"], found["info"]["status"]) == (run.training.mlflow_run_id, "FINISHED")
        logged = {metric["key"]: metric["value"] for metric in found["data"]["metrics"]}
        assert logged["validation_rmse"] == pytest.approx(run.metrics["validation_rmse"])
        # The same again is another run, in MLflow too, and moves nothing.
        again = await train(client, model)
        assert again.output_version.digest == run.output_version.digest
        await wait_for(client, model, "READY", 1)
        assert (run.training.model_version, again.training.model_version) == ("1", "2")
        # What was trained until an earlier day clears no cause.
        earlier = await train(client, model, parameters={"data_date": "2020-06-30"})
        assert (earlier.is_partial_range, earlier.training.label_end) == (True, "2020-06-30")
        await wait_for(client, model, "STALE", 2)
        await train(client, model)
        await wait_for(client, model, "READY", 3)
        promoted = await client.instances.promote_model_version(model, "1", reason="it is good")
        assert promoted.model.champion.run_id == run.training.mlflow_run_id
        changed = await client.instances.update(model, {"config": {**CONFIG, "validation_share": 0.25}})
        await wait_for(client, changed, "STALE", 3)
