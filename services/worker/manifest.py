"""Record which files a run has written, in the worker's own process after the run's process has ended."""

from __future__ import annotations

import io
from collections.abc import Iterator, Mapping
from itertools import islice

from optaic.plugins import PluginError
from optaic.rules.artifacts import MOST_FILES, measure, media_type
from optaic.run.v1 import run_pb2
from worker.written_files import FileGoneError, WrittenFile, list_files

_MOST_BYTES = (
    64 * 1024**3
)  # of all files: user code may make a file of any size that takes no room on the disk


def list_artifacts(artifacts: Mapping[str, str], outputs_uri: str) -> list[run_pb2.Artifact]:
    """Return the manifest of the artifacts that are in a run's output folder; it reads all of them.

    Raises:
        PluginError: `ArtifactMissing`: one of them is no plain file, and no folder with plain files; `ArtifactsTooLarge`.
        OSError: a file cannot be read.
    """
    own = {
        name: uri for name, uri in artifacts.items() if uri.startswith(outputs_uri)
    }  # not that of a dataset
    found = ((name, uri, file) for name, uri in sorted(own.items()) for file in _list(name, uri, outputs_uri))
    files = list(islice(found, MOST_FILES + 1))
    size = sum(file.size for _, _, file in files)
    if len(files) > MOST_FILES or size > _MOST_BYTES:
        raise PluginError(
            f"the artifacts of the run have more than {MOST_FILES} files or {_MOST_BYTES // 1024**3} GiB; write less",
            type="ArtifactsTooLarge",
        )
    return [_describe(name, uri, file) for name, uri, file in files]


def describe_text(name: str, uri: str, text: str) -> run_pb2.Artifact:
    """Return the entry of a text that the worker has written itself."""
    size, sha256 = measure(io.BytesIO(text.encode(errors="replace")))
    return run_pb2.Artifact(name=name, uri=uri, size_bytes=size, sha256=sha256, media_type=media_type(uri))


def _list(name: str, uri: str, outputs_uri: str) -> Iterator[WrittenFile]:
    parts = uri.removeprefix(outputs_uri).removesuffix("/").split("/")
    if {"", ".", ".."}.intersection(parts):  # it could lead anywhere
        raise _missing(name, f"{uri} names no file in the run's folder")
    try:
        found = list_files({name: uri}, MOST_FILES, outputs_uri)
    except FileGoneError as error:
        raise _missing(name, str(error)) from error
    if not found:
        raise _missing(name, f"there is no file at {uri}")
    yield from found


def _describe(name: str, uri: str, file: WrittenFile) -> run_pb2.Artifact:
    try:
        with file.open() as content:
            size, sha256 = measure(content)
    except FileGoneError as error:
        raise _missing(name, str(error)) from error
    place = uri.rstrip("/") + file.name.removeprefix(name)
    entry = run_pb2.Artifact(name=file.name, uri=place, size_bytes=size, sha256=sha256)
    entry.media_type = media_type(place)
    return entry


def _missing(name: str, problem: str) -> PluginError:
    return PluginError(f"artifacts.{name}: {problem}", type="ArtifactMissing")
