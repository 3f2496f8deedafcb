"""Decide whether a refresh may change its columns, because its code or configuration has changed."""

from __future__ import annotations

from optaic.plugins import Pipeline
from worker.recipe import PipelineRecipe


def is_reshaped(recipe: PipelineRecipe, pipeline: type[Pipeline]) -> bool:
    """Return whether other code or another configuration of columns and types made the previous version."""
    before, now, names = recipe.base_pipeline, recipe.pipeline, pipeline.shaped_by
    if before is None or before.code_ref != now.code_ref:
        return before is not None
    differing = {
        name for name in {*before.config, *now.config} if before.config.get(name) != now.config.get(name)
    }
    return bool(differing if names is None else differing & names)
