"""The second chapter of the job: what a researcher builds on the prices and the signal of the first one."""

from __future__ import annotations

import asyncio
import contextlib
from typing import Any

from demo.stage import Stage, expect
from optaic.client import word
from optaic.instance.v1 import instance_pb2

PRICES, SIGNAL, BACKTEST = "sp500_prices", "momentum_12_1", "momentum_backtest"
EXPERIMENT, MODEL, OPTIMIZER, OPTIMIZED = "momentum_preview", "next_month", "min_cvar", "optimized_backtest"
_HORIZON = 21  # sessions, about a month
_ROUNDING = 1e-6  # of a solver
_PATIENCE = 60.0  # seconds
_FEATURES = {
    "momentum": f"{SIGNAL}.value",
    "reversal": f"REVERSAL({PRICES}.close, 5)",
    "risk": f"RANK(VOLATILITY({PRICES}.close, 63))",
}


async def research(stage: Stage) -> None:
    """Preview the signal, train a model on it, and have an optimizer weigh what the predictions choose.

    Raises:
        StepFailedError: a step did not give what it promises.
    """
    async with stage.step("Preview momentum beside the returns that follow it"):
        await preview_momentum(stage)
    async with stage.step(
        "Create a model, an optimizer and a backtest of both, with their objects in Prefect, MLflow and Evidently"
    ):
        await create_every_kind(stage)
    async with stage.step(f"Train {MODEL}: it is measured on sessions that it has not seen"):
        await train(stage)
    async with stage.step(f"Promote the version of {MODEL} that MLflow has registered"):
        await promote(stage)
    async with stage.step(f"Predict with {MODEL}, out of sample only"):
        await predict(stage)
    async with stage.step(
        f"Monitor {PRICES} and {MODEL}: has their newest quarter drifted from what was before?"
    ):
        await monitor_prices(stage)
        await monitor_model(stage)
    async with stage.step(f"Decide the weights of {OPTIMIZER} on the predictions"):
        await optimize(stage)
    async with stage.step(f"Run {OPTIMIZED} with these weights, beside {BACKTEST}"):
        await compare_backtests(stage)


async def _create(stage: Stage, name: str, **given: Any) -> instance_pb2.Instance:
    """Create an instance beside the prices, and wait until the outside systems have what belongs to it."""
    project = stage.instances[PRICES].project_id
    created = await stage.client.instances.create(project=project, name=name, **given)
    stage.instances[name] = await stage.client.instances.wait_until_active(created.instance_id)
    return stage.instances[name]


async def preview_momentum(stage: Stage) -> None:
    """Run an experiment with the macro MOMENTUM; check that it is READY and that its table has the rows it counts."""
    prices = stage.instances[PRICES]
    await _create(
        stage,
        EXPERIMENT,
        experiment={"date_range": {"start": "2015-01-02"}},
        definition_name="MOMENTUM",
        config={"x": "close", "long": 252, "short": 21},
        upstreams={"input": prices, "prices": prices},
    )
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
    """Create a model, an optimizer and a backtest; check that each is ACTIVE with its ids in outside systems."""
    prices, signal = stage.instances[PRICES], stage.instances[SIGNAL]
    model = await _create(
        stage,
        MODEL,
        model={},
        definition_name="ridge",
        config={
            "features": [{"name": name, "expression": text} for name, text in _FEATURES.items()],
            "target": {"expression": f"PCT(close, {_HORIZON})", "horizon": _HORIZON},
        },
        upstreams={"features": [signal, prices], "target": prices},
    )
    optimizer = await _create(
        stage,
        OPTIMIZER,
        portfolio_optimizer={},
        definition_name="minimum_cvar",
        config={"top_n": 10},
        upstreams={"signal": model, "covariance": prices},
    )
    backtest = await _create(
        stage,
        OPTIMIZED,
        backtest={
            "assets": {"benchmark": "equal_weight"},
            "signals": {"primary": model.instance_id},
            "config": {"rebalance_frequency": "monthly", "transaction_costs": 0.001, "top_n": 10},
        },
        upstreams={"prices": prices, "optimizer": optimizer},
    )
    await _check_handles(stage, model, stage.instances[EXPERIMENT], optimizer, backtest)


async def _check_handles(stage: Stage, model: instance_pb2.Instance, *others: instance_pb2.Instance) -> None:
    """Check that Prefect has each flow's deployment, MLflow the model's experiment, and Evidently its project."""
    async with stage.tools.prefect() as prefect, stage.tools.mlflow() as mlflow:
        for instance in (model, *others):
            for flow in instance.flows:
                answer = await prefect.get(f"/deployments/{flow.prefect_deployment_id}")
                is_there = answer.is_success
                expect(
                    is_there, f"{word(flow, 'flow_kind')} of {instance.name} to have a deployment in Prefect"
                )
        asked = {"experiment_id": model.model.mlflow_experiment_id}
        answer = await mlflow.get("/api/2.0/mlflow/experiments/get", params=asked)
        expect(answer.is_success, f"{model.name} to have an experiment in MLflow")
        experiment = answer.json()["experiment"]["name"]
    project = model.model.evidently_project_id
    is_there = (stage.tools.evidently_workspace / project).is_dir()
    expect(bool(project) and is_there, f"{model.name} to have a project in Evidently's workspace")
    stage.notes.append(f"{model.name}: MLflow experiment {experiment}, Evidently project {project}")


async def train(stage: Stage) -> None:
    """Train the model; its inference and its monitoring have not run yet."""
    handle = await stage.execute(MODEL, "training", then="NOT_INITIALIZED")
    result = handle.run.training
    expect(
        0 < result.validation_row_count < result.train_row_count,
        f"{MODEL} to be measured on fewer rows than it learns from",
    )
    stage.notes.append(
        f"{MODEL}: trained on {result.train_row_count} rows until {result.train_end}, measured on "
        f"{result.validation_row_count} later ones"
    )


async def promote(stage: Stage) -> None:
    """Make the version that the training registered the champion, which inference reads."""
    (trained,) = (run for name, run in stage.runs if name == MODEL)
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(_PATIENCE):  # a busy MLflow gets the model after the run has completed
            while trained.telemetry_pending:
                await asyncio.sleep(0.5)
                trained = await stage.client.runs.get(trained.run_id)
    version = trained.training.model_version
    expect(
        bool(version),
        f"MLflow to have a registered version of the training, it owes {trained.telemetry_pending}",
    )
    stage.instances[MODEL] = await stage.client.instances.promote_model_version(
        stage.instances[MODEL], version, reason="the first version"
    )


async def predict(stage: Stage) -> None:
    """Predict; check that no prediction comes from a model that knew its label."""
    handle = await stage.execute(MODEL, "inference", then="NOT_INITIALIZED")
    expect(handle.run.inference.prediction_count > 0, f"{MODEL} to predict something")
    expect(handle.metrics["in_sample_rows"] == 0, "all predictions to be out of sample")
    stage.notes.append(
        f"{MODEL}: {handle.run.inference.prediction_count} predictions by version {handle.run.model_artifact_version}"
    )


async def monitor_prices(stage: Stage) -> None:
    """Compare the newest sessions of the prices with those before; the report is in their Evidently project."""
    prices = stage.instances[PRICES]
    await stage.client.instances.update(prices, {"dataset": {"monitoring_enabled": True}})
    handle = await stage.execute(PRICES, "monitoring", then=None)  # it waits for its deployment
    stage.instances[PRICES] = await stage.client.instances.get(prices.instance_id)
    result = handle.run.monitoring
    stage.notes.append(
        f"{PRICES}: {result.drift_share:.0%} of the columns have drifted, {result.alert_count} alerts"
    )


async def monitor_model(stage: Stage) -> None:
    """Compare the newest features and predictions with the training period, and the predictions with what came."""
    handle = await stage.execute(MODEL, "monitoring")
    result = handle.run.monitoring
    expect(handle.metrics["realised_ic"] is not None, "predictions whose outcome is known by now")
    stage.notes.append(
        f"{MODEL}: realised IC {handle.metrics['realised_ic']:+.3f}, {result.alert_count} alerts"
    )


async def optimize(stage: Stage) -> None:
    """Decide the weights of the last date of the signal; check that they are a portfolio."""
    handle = await stage.execute(OPTIMIZER)
    total = float((await handle.artifact("weights"))["weight"].sum())
    expect(abs(total - 1) < _ROUNDING, f"the weights of {OPTIMIZER} to have the sum 1, not {total}")
    decision = handle.run.portfolio_optimization
    stage.notes.append(
        f"{OPTIMIZER}: {decision.asset_count} entities on {decision.decision_date}, expected volatility "
        f"{handle.metrics['volatility']:.1%}"
    )


async def compare_backtests(stage: Stage) -> None:
    """Run the backtest whose weights the optimizer decides, and put it beside that of the signal alone."""
    handle = await stage.execute(OPTIMIZED)
    before = next(run for name, run in reversed(stage.runs) if name == BACKTEST)
    volatility, plain = handle.metrics["volatility"], dict(before.metrics)["volatility"]
    stage.notes.append(f"{OPTIMIZED}: volatility {volatility:.1%} a year, {BACKTEST} {plain:.1%}")
