"""Put the place where data is read into what was recorded before the data was moved."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from optaic.rules.locations import relocate
from optaic.run.v1 import run_pb2


def relocate_run(run: run_pb2.Run, tenant_id: str, roots: Mapping[str, str]) -> None:
    """Have all URIs of a run name where the data lies now, in place."""
    if not roots:
        return

    def moved(uri: str) -> str:
        return relocate(uri, tenant_id, roots)

    run.outputs_uri = moved(run.outputs_uri)
    for name, uri in list(run.artifacts.items()):
        run.artifacts[name] = moved(uri)
    relocate_manifest(run.artifact_manifest, tenant_id, roots)
    for version in run.input_versions:
        version.uri = moved(version.uri)
    if run.HasField("base_version"):
        run.base_version.uri = moved(run.base_version.uri)
    if run.HasField("output_version"):
        run.output_version.uri = moved(run.output_version.uri)
    if run.HasField("error"):
        run.error.trace_uri = moved(run.error.trace_uri)
    if run.HasField("training"):
        run.training.model_uri = moved(run.training.model_uri)
    if run.HasField("monitoring"):
        run.monitoring.report_uri = moved(run.monitoring.report_uri)


def relocate_manifest(manifest: Iterable[run_pb2.Artifact], tenant_id: str, roots: Mapping[str, str]) -> None:
    """Have all URIs of a manifest name where the data lies now, in place."""
    for each in manifest:
        each.uri = relocate(each.uri, tenant_id, roots)
