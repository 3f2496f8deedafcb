"""The blocking part of a run: plugins are loaded, inputs read, outputs written; it calls no service."""

from __future__ import annotations

from worker.computing.backtest import simulate
from worker.computing.inference import infer
from worker.computing.monitoring import watch
from worker.computing.optimization import optimize
from worker.computing.output import Output, Progress
from worker.computing.preview import preview
from worker.computing.refresh import refresh
from worker.locations import FlowLocation
from worker.recipe import (
    BacktestRecipe,
    ExperimentRecipe,
    InferenceRecipe,
    MonitoringRecipe,
    OptimizationRecipe,
    PipelineRecipe,
    Recipe,
    TrainingRecipe,
)

__all__ = ["Output", "Progress", "compute"]


def compute(recipe: Recipe, location: FlowLocation, run_id: str, progress: Progress) -> Output:
    """Execute a recipe.

    Raises:
        PluginError: typed by what went wrong; and whatever else user code raises.
    """
    progress(0.01, "loading plugins")
    place = location.outputs_uri(run_id)
    match recipe:
        case PipelineRecipe():
            output = refresh(recipe, location, progress)
        case ExperimentRecipe():
            output = preview(recipe, location, run_id, progress)
        case OptimizationRecipe():
            output = optimize(recipe, location, run_id, progress)
        case MonitoringRecipe():
            output = watch(recipe, place, run_id, progress)
        case InferenceRecipe():
            output = infer(recipe, location, progress)
        case TrainingRecipe():
            from worker.computing import training  # noqa: PLC0415 - it loads what only processes of runs may hold

            output = training.fit(recipe, location, run_id, progress)
        case BacktestRecipe():
            output = simulate(recipe, place, run_id, progress)
    return output
