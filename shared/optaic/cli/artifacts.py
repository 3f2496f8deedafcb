"""`optaic run artifact`: one file that a run has written, or a URL for it."""

from __future__ import annotations

import asyncio
import hashlib
import os
import urllib.request
from contextlib import closing
from pathlib import Path
from typing import IO, Annotated
from urllib.parse import unquote

import typer

from optaic import storage
from optaic.cli.exits import Exit
from optaic.cli.files import new_file
from optaic.cli.output import print_line
from optaic.cli.session import RunArgument, fail, run, warn
from optaic.client import AsyncClient
from optaic.client.reading import is_out_of_reach
from optaic.errors import FailedPreconditionError
from optaic.rules.artifacts import find_problem
from optaic.run.v1 import run_pb2

_CHUNK = 1024 * 1024
_SECONDS = 60.0  # without any byte


def artifact(
    run_id: RunArgument,
    name: Annotated[
        str, typer.Argument(help="Name of the artifact, or of a file in it.", show_default=False)
    ],
    url: Annotated[
        bool, typer.Option("--url", help="Print a URL that reads the file for five minutes; it is a secret.")
    ] = False,
    file: Annotated[
        Path | None,
        typer.Option(
            "--file", "-f", help="File to write; by default one of the same name here, if there is none."
        ),
    ] = None,
) -> None:
    """Download one file that a run has written, and check its size and SHA-256; or print a URL for it."""

    async def command(client: AsyncClient) -> None:
        if url:
            print_line((await client.runs.sign_artifact_url(run_id, name)).url)
            return
        found = await client.runs.get(run_id)
        entry = _find(found, name)
        target = file or Path(unquote(entry.uri.rstrip("/").rpartition("/")[2]))
        if file is None and target.exists():
            fail(f"{target} exists; say with --file where to write", status=Exit.USAGE)
        source = entry.uri
        if is_out_of_reach(entry.uri):
            try:
                source = (await client.runs.sign_artifact_url(run_id, name)).url
            except FailedPreconditionError as error:  # then this machine may have a credential
                if not storage.is_remote(entry.uri):
                    raise error from None
                storage.install(
                    storage.Access.from_environment(
                        {**os.environ, **client.runs.find_object_store(entry.uri)}
                    )
                )
        with new_file(target) as draft:
            try:
                await asyncio.to_thread(_download, source, entry, draft)
            except TimeoutError:
                fail(f"{entry.uri} was not read within {_SECONDS:.0f} s without a byte", status=Exit.TIMEOUT)
            except OSError as error:
                fail(f"{entry.uri} cannot be read: {error}")
        print_line(str(target))

    run(command)


def _find(found: run_pb2.Run, name: str) -> run_pb2.Artifact:
    """Return the record of a file; without a hash where the run has recorded none."""
    for entry in found.artifact_manifest:
        if entry.name == name:
            return entry
    if name not in found.artifacts or found.artifact_manifest:
        names = [entry.name for entry in found.artifact_manifest] or sorted(found.artifacts)
        fail(
            f"run {found.run_id} has no file {name!r}; its files are {', '.join(names) or 'none'}",
            status=Exit.NOT_FOUND,
        )
    warn("the run has recorded no hash of its files, so the file is not checked")
    return run_pb2.Artifact(name=name, uri=found.artifacts[name])


def _download(source: str, entry: run_pb2.Artifact, draft: Path) -> None:
    """Write a file, and compare its size and hash."""
    with closing(_open(source)) as content, draft.open("wb") as target:
        size, sha256 = _copy(content, target)
    if entry.sha256 and (problem := find_problem(entry, size, sha256)):
        fail(f"ARTIFACT_CORRUPT: {problem}; run the flow again, or restore the file")


def _open(source: str) -> IO[bytes]:
    if source.startswith(("http://", "https://")):
        opened: IO[bytes] = urllib.request.urlopen(source, timeout=_SECONDS)  # noqa: S310 - one of the two
        return opened
    return storage.open_file(source)


def _copy(content: IO[bytes], target: IO[bytes]) -> tuple[int, str]:
    """Copy all, and return its size and SHA-256."""
    found, size = hashlib.sha256(), 0
    while chunk := content.read(_CHUNK):
        found.update(chunk)
        target.write(chunk)
        size += len(chunk)
    return size, found.hexdigest()
