"""Record which files a run has written, in the worker's own process after the run's process has ended."""

from __future__ import annotations

import io
from collections.abc import Mapping

from optaic.plugins import PluginError
from optaic.rules.artifacts import MOST_FILES, measure, media_type
from optaic.run.v1 import run_pb2
from worker.written_files import FileGoneError, list_files


def list_artifacts(artifacts: Mapping[str, str], outputs_uri: str) -> list[run_pb2.Artifact]:
    """Return the manifest of the artifacts that are in a run's output folder; it reads all of them.

    Raises:
        PluginError: `ArtifactMissing`: one of them is no plain file, and no folder with plain files; `TooManyFiles`.
        OSError: a file cannot be read.
    """
    manifest: list[run_pb2.Artifact] = []
    for name, uri in sorted(artifacts.items()):
        if not uri.startswith(outputs_uri):
            continue  # the data of a dataset
        found = _list(name, uri, outputs_uri)
        if not found:
            raise PluginError(f"artifacts.{name}: there is no file at {uri}", type="ArtifactMissing")
        manifest += found
        if len(manifest) > MOST_FILES:
            raise PluginError(
                f"the artifacts of the run are more than {MOST_FILES} files; write fewer", type="TooManyFiles"
            )
    return manifest


def describe_text(name: str, uri: str, text: str) -> run_pb2.Artifact:
    """Return the entry of a text that the worker has written itself."""
    size, sha256 = measure(io.BytesIO(text.encode(errors="replace")))
    return run_pb2.Artifact(name=name, uri=uri, size_bytes=size, sha256=sha256, media_type=media_type(uri))


def _list(name: str, uri: str, outputs_uri: str) -> list[run_pb2.Artifact]:
    entries = []
    try:
        for each in list_files({name: uri}, outputs_uri)[: MOST_FILES + 1]:
            with each.open() as file:
                size, sha256 = measure(file)
            place = uri.rstrip("/") + each.name.removeprefix(name)
            entry = run_pb2.Artifact(name=each.name, uri=place, size_bytes=size, sha256=sha256)
            entry.media_type = media_type(place)
            entries.append(entry)
    except FileGoneError as error:
        raise PluginError(f"artifacts.{name}: {error}", type="ArtifactMissing") from error
    return entries
