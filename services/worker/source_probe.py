"""Ask a pipeline for the token of its source, without a run; calls no service."""

from __future__ import annotations

from dataclasses import dataclass, field

from optaic.plugins import Pipeline, PipelineContext, load
from worker.computing.probing import read_token
from worker.recipe import Component
from worker.sources.access import SourceAccess


@dataclass(frozen=True)
class SourceProbe:
    """The source to probe: that of a configured pipeline."""

    pipeline: Component
    timezone: str  # the dataset's
    log_level: str = "INFO"
    sources: SourceAccess = field(default_factory=SourceAccess)  # what it may read, and the secrets for it


def probe(task: SourceProbe) -> str:
    """Return the token of the source as it is now; empty if the pipeline has none.

    Raises:
        PluginError: the pipeline cannot be loaded, or the source cannot be asked.
    """
    pipeline = load(task.pipeline.code_ref, Pipeline)()
    return read_token(pipeline, PipelineContext(config=task.pipeline.config, timezone=task.timezone))
