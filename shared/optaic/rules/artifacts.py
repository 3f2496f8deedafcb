"""The rules about the files that runs have written, for services, workers and clients."""

from __future__ import annotations

import hashlib
import mimetypes
from collections.abc import Iterable, Mapping
from typing import IO, TYPE_CHECKING

if TYPE_CHECKING:
    from optaic.run.v1.run_pb2 import Artifact

MOST_FILES = 5_000  # of one run; as many entries has its manifest
_CHUNK = 1024 * 1024
_TYPES = {
    "parquet": "application/vnd.apache.parquet",
    "bin": "application/octet-stream",
    "json": "application/json",
}
_UNKNOWN = "application/octet-stream"


def media_type(name: str) -> str:
    """Return the media type of a file by the end of its name."""
    suffix = name.rpartition(".")[2].lower()
    return _TYPES.get(suffix) or mimetypes.guess_type(name, strict=True)[0] or _UNKNOWN


def find_manifest_problems(artifacts: Mapping[str, str], manifest: Iterable[Artifact]) -> dict[str, str]:
    """Return what is wrong with the manifest of some artifacts (name -> URI), by the path of the field; empty if nothing is.

    Each artifact has an entry, and each entry is the file of one, or a file below it.
    """
    problems, found = {}, set()
    for number, entry in enumerate(manifest):
        parts = entry.name.split("/")
        names = ["/".join(parts[:length]) for length in range(len(parts), 0, -1)]
        name = next((each for each in names if each in artifacts), None)
        if name is None:
            problems[f"artifact_manifest[{number}].name"] = (
                f"{entry.name!r} is no artifact; send `artifacts` with it"
            )
        elif entry.uri != artifacts[name].rstrip("/") + entry.name[len(name) :]:
            problems[f"artifact_manifest[{number}].uri"] = f"is not where the artifact {name!r} is"
        else:
            found.add(name)
    for name in sorted(artifacts.keys() - found):
        problems[f"artifacts[{name!r}]"] = "has no entry in artifact_manifest; send one"
    return problems


def measure(file: IO[bytes]) -> tuple[int, str]:
    """Return the length and the SHA-256 of a file, read from where it is open."""
    found, length = hashlib.sha256(), 0
    while content := file.read(_CHUNK):
        found.update(content)
        length += len(content)
    return length, found.hexdigest()


def find_problem(entry: Artifact, size: int, sha256: str) -> str:
    """Return how a file differs from its entry in the manifest; empty if it does not."""
    if size != entry.size_bytes:
        return f"{entry.uri} has {size} bytes, but the run wrote {entry.size_bytes}"
    if sha256 != entry.sha256:
        return f"{entry.uri} has the SHA-256 {sha256}, but the run wrote a file with {entry.sha256}"
    return ""
