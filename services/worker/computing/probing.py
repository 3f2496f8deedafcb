"""Ask a pipeline for the token of its source."""

from __future__ import annotations

from optaic.common.v1.flow_pb2 import VersionRef
from optaic.plugins import Pipeline, PipelineContext, PluginError
from optaic.rules.limits import longest_text

_LONGEST = longest_text(VersionRef, "source_token")


def read_token(pipeline: Pipeline, context: PipelineContext) -> str:
    """Return the token of a pipeline's source as it is now; empty if the pipeline has none.

    Raises:
        PluginError: PluginInvalid, what the pipeline returns is no token; or the pipeline's own error.
    """
    token = pipeline.probe(context)
    if not isinstance(token, str) or len(token) > _LONGEST or not token.isprintable():
        raise PluginError(
            f"probe of {type(pipeline).__name__} must return a printable text of at most {_LONGEST} characters, such as a hash",
            type="PluginInvalid",
        )
    return token
