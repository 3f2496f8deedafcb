"""The blocking part of a run: plugins are loaded, inputs read, outputs written; it calls no service."""

from __future__ import annotations

from worker.computing.backtest import simulate
from worker.computing.monitoring import watch
from worker.computing.optimization import optimize
from worker.computing.output import Output, Progress
from worker.computing.preview import preview
from worker.computing.refresh import refresh
from worker.locations import FlowLocation
from worker.recipe import (
    ExperimentRecipe,
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
    if isinstance(recipe, PipelineRecipe):
        return refresh(recipe, location, progress)
    if isinstance(recipe, ExperimentRecipe):
        return preview(recipe, location, run_id, progress)
    if isinstance(recipe, OptimizationRecipe):
        return optimize(recipe, location, run_id, progress)
    if isinstance(recipe, MonitoringRecipe):
        return watch(recipe, location.outputs_uri(run_id), run_id, progress)
    if isinstance(recipe, TrainingRecipe):
        from worker.computing import training  # noqa: PLC0415 - it loads what only processes of runs may hold

        return training.fit(recipe, location, run_id, progress)
    return simulate(recipe, location.outputs_uri(run_id), run_id, progress)
