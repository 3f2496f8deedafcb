"""A researcher predicts with a model: pinned, with a champion, without it again; a backtest reads the predictions, and they are monitored."""

from __future__ import annotations

import datetime as dt
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx

from optaic.client import AsyncClient, word
from optaic.common.v1 import flow_pb2
from optaic.instance.v1 import instance_pb2
from optaic.lineage.v1 import lineage_pb2
from optaic.run.v1 import run_pb2
from support.client import connected_client, create_dataset, create_project
from support.mlflow_api import MlflowApi
from support.polling import PATIENCE, eventually
from support.stack import RunningStack

SYMBOLS = ["AAPL", "AMD", "BAC", "CVX", "GE", "MSFT"]
PRICES = {"symbols": SYMBOLS, "start": "2018-01-02", "end": "2020-12-31"}
CONFIG = {
    "features": [{"name": "month", "expression": "PCT(close, 21)", "transforms": [{"name": "standardize"}]}],
    "target": {"expression": "PCT(close, 5)", "horizon": 5},
}


@asynccontextmanager
async def logged_in(stack: RunningStack) -> AsyncIterator[MlflowApi]:
    user, _, password = stack.endpoints.mlflow_login.partition(":")
    async with httpx.AsyncClient(
        base_url=stack.endpoints.mlflow, auth=(user, password), timeout=30, trust_env=False
    ) as client:
        yield MlflowApi(client)


async def execute(
    client: AsyncClient, instance: Any, status: Any = run_pb2.RUN_STATUS_COMPLETED, **fields: Any
) -> run_pb2.Run:
    run: run_pb2.Run = await (await client.runs.submit(instance, **fields)).wait(timeout=PATIENCE)
    assert run.status == status, run.error
    return run


async def wait_for(client: AsyncClient, model: instance_pb2.Instance, state: str) -> list[Any]:
    """Wait for the word of the flow inference; return why it has it."""
    causes: list[Any] = []

    async def is_there() -> bool:
        status = await client.status.get(model)
        (found,) = [each for each in status.flows if each.flow_kind == flow_pb2.FLOW_KIND_INFERENCE]
        causes[:] = found.causes
        return bool(word(found, "status") == state)

    await eventually(is_there, PATIENCE, f"the inference does not become {state}")
    return causes


async def test_predictions_come_from_the_pinned_training_or_the_champion(stack: RunningStack) -> None:
    async with connected_client(stack) as client, logged_in(stack) as mlflow:
        project = await create_project(client, "inference")
        prices = await create_dataset(client, project, "prices", "sp500_prices", PRICES)
        model = await client.instances.create(
            project=project,
            name="model",
            model={},
            definition_name="ridge",
            config=CONFIG,
            upstreams={"features": prices, "target": prices},
        )
        model = await client.instances.wait_until_active(model.instance_id, timeout=PATIENCE)
        await execute(client, prices)
        training = await execute(client, model, flow_kind="training")
        run = await execute(client, model, flow_kind="inference")
        assert run.model_artifact_version == run.inference.model_run_id == training.run_id
        assert run.metrics["in_sample_rows"] == 0
        table = await client.data.read(model, flow_kind="inference")
        assert table.columns == ["date", "entity", "value", "confidence"]
        assert table["date"].max() == dt.date(2020, 12, 31)
        await wait_for(client, model, "READY")

        model = await client.instances.promote_model_version(model, training.training.model_version)
        assert model.model.champion.training_run_id == training.run_id
        (cause,) = await wait_for(client, model, "STALE")
        assert cause.kind == lineage_pb2.CAUSE_KIND_OWN_CONFIG
        champion = await execute(client, model, flow_kind="inference")
        assert champion.model_artifact_version == training.training.model_version
        assert champion.output_version.digest == run.output_version.digest
        await wait_for(client, model, "READY")
        model = await client.instances.update(model, {"config": {**CONFIG, "alpha": 50}})
        await execute(client, model, flow_kind="inference")
        newer = await execute(client, model, flow_kind="training")
        assert newer.output_version.digest != training.output_version.digest
        again = await execute(client, model, flow_kind="inference")
        assert again.metrics["features_of_revision"] == training.instance_revision
        assert again.output_version.digest == run.output_version.digest
        await wait_for(client, model, "READY")

        backtest = await client.instances.create(
            project=project,
            name="backtest",
            backtest={"signals": {"primary": model.instance_id}, "config": {"top_n": 2}},
            upstreams={"prices": prices},
        )
        tested = await execute(client, backtest)
        assert tested.backtest.execution_count > 0

        name, version = model.model.mlflow_registered_model_name, training.training.model_version
        await mlflow.call("DELETE", "model-versions/delete", name=name, version=version)
        gone = await execute(client, model, run_pb2.RUN_STATUS_FAILED, flow_kind="inference")
        assert gone.error.type == "ModelVersionNotFound"
        model = await client.instances.remove_champion(model, reason="it is gone")
        pinned = await execute(client, model, flow_kind="inference")
        assert pinned.model_artifact_version == newer.run_id
        assert pinned.output_version.digest != run.output_version.digest
        await wait_for(client, model, "READY")
        await check_monitoring(stack, client, model, newer)


async def check_monitoring(
    stack: RunningStack, client: AsyncClient, model: instance_pb2.Instance, trained: run_pb2.Run
) -> None:
    """Check that the predictions are compared with what came, and that Evidently has the report."""
    run = await execute(client, model, flow_kind="monitoring")
    assert run.metrics["features_of_revision"] == trained.instance_revision
    assert run.metrics["reference_is_training_period"] is True
    assert run.metrics["labelled_predictions"]
    assert run.metrics["realised_ic"] is not None
    assert {"report", "snapshot", "column_metrics"} <= set(run.artifacts)
    place = Path(stack.endpoints.evidently_workspace) / model.instance_id / "snapshots" / f"{run.run_id}.json"
    await eventually(place.is_file, PATIENCE)
