"""The second chapter of the job: what a researcher does with the prices and the signal of the first one."""

from __future__ import annotations

from demo.stage import Stage, expect
from optaic.client import word
from optaic.instance.v1 import instance_pb2

EXPERIMENT = "momentum_preview"
_HORIZON = 21


async def research(stage: Stage) -> None:
    """Preview the signal, and create what is built on it.

    Raises:
        StepFailedError: a step did not give what it promises.
    """
    async with stage.step("Preview momentum beside the returns that follow it"):
        await preview_momentum(stage)
    async with stage.step(
        "Create one instance of every other kind, with its objects in Prefect, MLflow and Evidently"
    ):
        await create_every_kind(stage)


async def preview_momentum(stage: Stage) -> None:
    """Run an experiment with the macro MOMENTUM; check that it is READY and that its table has the rows it counts."""
    prices = stage.instances["sp500_prices"]
    experiment = await stage.client.instances.create(
        project=prices.project_id,
        name=EXPERIMENT,
        experiment={"date_range": {"start": "2015-01-02"}},
        definition_name="MOMENTUM",
        config={"x": "close", "long": 252, "short": 21},
        upstreams={"input": prices, "prices": prices},
    )
    stage.instances[EXPERIMENT] = await stage.client.instances.wait_until_active(experiment.instance_id)
    handle = await stage.execute(EXPERIMENT)
    result, metrics = handle.run.experiment, handle.metrics
    table = await handle.artifact("preview")
    expect(result.row_count == table.height > 0, f"a preview of {result.row_count} rows to have them")
    expect(result.nan_share == 0, "the first dates of the preview to have had their warm-up")
    mean, t_statistic = (metrics[f"ic_{figure}_{_HORIZON}"] for figure in ("mean", "t_statistic"))
    stage.notes.append(
        f"{EXPERIMENT}: {table.height} rows, mean IC over {_HORIZON} sessions {mean:+.3f} (t {t_statistic:+.1f})"
    )


async def create_every_kind(stage: Stage) -> None:
    """Create a model and an optimizer; check that each is ACTIVE with its ids in outside systems."""
    prices, signal = stage.instances["sp500_prices"], stage.instances["momentum_12_1"]
    model = await stage.client.instances.create(
        project=prices.project_id,
        name="next_month",
        model={},
        definition_name="ridge",
        config={
            "features": [{"name": "momentum", "expression": "value"}],
            "target": {"expression": "PCT(close, 21)", "horizon": 21},
        },
        upstreams={"features": signal, "target": prices},
    )
    optimizer = await stage.client.instances.create(
        project=prices.project_id,
        name="min_cvar",
        portfolio_optimizer={},
        definition_name="minimum_cvar",
        upstreams={"signal": signal, "covariance": prices},
    )
    for created in (model, optimizer):
        instance = await stage.client.instances.wait_until_active(created.instance_id)
        stage.others[instance.name] = instance
    await _check_handles(stage, stage.others[model.name])


async def _check_handles(stage: Stage, model: instance_pb2.Instance) -> None:
    """Check that Prefect has each flow's deployment, MLflow the model's experiment, and Evidently its project."""
    instances = {**stage.others, EXPERIMENT: stage.instances[EXPERIMENT]}
    async with stage.tools.prefect() as prefect, stage.tools.mlflow() as mlflow:
        for name, instance in instances.items():
            for flow in instance.flows:
                answer = await prefect.get(f"/deployments/{flow.prefect_deployment_id}")
                is_there = answer.is_success
                expect(is_there, f"{word(flow, 'flow_kind')} of {name} to have a deployment in Prefect")
        asked = {"experiment_id": model.model.mlflow_experiment_id}
        answer = await mlflow.get("/api/2.0/mlflow/experiments/get", params=asked)
        expect(answer.is_success, f"{model.name} to have an experiment in MLflow")
        experiment = answer.json()["experiment"]["name"]
    project = model.model.evidently_project_id
    is_there = (stage.tools.evidently_workspace / project).is_dir()
    expect(bool(project) and is_there, f"{model.name} to have a project in Evidently's workspace")
    stage.notes.append(f"{model.name}: MLflow experiment {experiment}, Evidently project {project}")
