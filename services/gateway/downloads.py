"""Serve the files that runs have written: whoever may read the run may read them."""

from __future__ import annotations

import asyncio
import functools
import re
from base64 import b64encode
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar
from urllib.parse import quote

from gateway import errors, files
from gateway.artifacts import find_artifact, locate
from gateway.config import Settings
from gateway.questions import Questions, ServiceRefusedError
from gateway.ranges import Part, find_part
from gateway.request import Request
from gateway.response import Response
from optaic import storage
from optaic.run.v1 import run_pb2
from servicekit.artifact_urls import PATH, ArtifactUrls
from servicekit.clock import Clock
from servicekit.signing import ForgedError

_PATH = re.compile(r"/runs/([0-9a-f-]{36})/artifacts/(.{1,1024})", re.DOTALL)
_OPEN_SECONDS = 30.0
_READ_SECONDS = 60.0  # an object store is asked again for so long
_PIECE_BYTES = 256 * 1024
_THREADS = 4
_MEDIA_TYPE = re.compile(r"[A-Za-z0-9.+-]{1,100}/[A-Za-z0-9.+-]{1,100}")
_BINARY = "application/octet-stream"
_Result = TypeVar("_Result")


class Downloads:
    """The files of runs, at `/runs/<run>/artifacts/<name>`; one piece of each is in memory."""

    def __init__(self, settings: Settings, questions: Questions, clock: Clock) -> None:
        self._roots = settings.data_roots()
        self._urls = ArtifactUrls(settings.artifact_url_key) if settings.artifact_url_key else None
        self._clock = clock
        self._questions = questions
        self._threads = ThreadPoolExecutor(_THREADS, thread_name_prefix="downloads")

    @staticmethod
    def is_at(path: str) -> bool:
        """Return whether a path names a file of a run."""
        return _PATH.fullmatch(path) is not None

    @staticmethod
    def is_signed(path: str) -> bool:
        """Return whether a path is that of a signed URL, which is read without a token and is a secret itself."""
        return path.startswith(PATH)

    async def serve(self, request: Request, response: Response) -> None:
        """Answer a GET or a HEAD.

        Raises:
            NotFoundError: RUN_NOT_FOUND, ARTIFACT_NOT_FOUND.
            FailedPreconditionError: NO_DATA_ROOT, DATA_ROOT_NOT_SERVED.
            UnavailableError: ARTIFACT_NOT_READABLE.
            InternalError: ARTIFACT_CORRUPT.
        """
        named = _PATH.fullmatch(request.path)
        assert named is not None
        run_id, name = named.groups()
        if not self._roots:
            raise errors.no_data_root()
        try:
            run = await self._questions.get_run(request, run_id)
        except ServiceRefusedError as refused:
            await response.refuse(refused.error, domain=refused.domain)
            return
        found = find_artifact(run, name)
        if found is None:
            raise errors.artifact_not_found(run_id, name)
        await self._answer(*found, request, response)

    async def serve_signed(self, request: Request, response: Response) -> None:
        """Answer a GET or a HEAD of a signed URL.

        Raises:
            PermissionDeniedError: URL_NOT_VALID; it is not signed, or its time is over.
            FailedPreconditionError: DATA_ROOT_NOT_SERVED.
            UnavailableError: ARTIFACT_NOT_READABLE.
            InternalError: ARTIFACT_CORRUPT.
        """
        if self._urls is None or not self._roots:
            raise errors.url_not_valid()
        try:
            file = self._urls.open(request.path.removeprefix(PATH))
        except ForgedError:
            raise errors.url_not_valid() from None
        if self._clock.now().timestamp() >= file.expires:
            raise errors.url_not_valid()
        entry = run_pb2.Artifact(
            name=file.name,
            uri=file.uri,
            size_bytes=file.size_bytes,
            sha256=file.sha256,
            media_type=file.media_type,
        )
        location = locate(file.uri)
        if location is None or storage.is_remote(file.uri):
            raise errors.url_not_valid()
        await self._answer(entry, location.root, request, response)

    async def _answer(self, entry: run_pb2.Artifact, root: str, request: Request, response: Response) -> None:
        if root not in self._roots:
            raise errors.data_root_not_served(entry.name)
        etag = f'"{entry.sha256}"'
        try:
            part = find_part(request.headers, entry.size_bytes, etag)
        except ValueError:
            raise errors.no_such_range(entry.size_bytes) from None
        if request.headers.get("if-none-match", "").strip() == etag:
            await response.answer(304, b"", _BINARY, {"etag": etag})
            return
        await self._send(entry, root, part, response, has_body=request.method == "GET")

    def close(self) -> None:
        """End the threads; one that hangs does not keep the process."""
        self._threads.shutdown(wait=False, cancel_futures=True)

    async def _send(
        self, entry: run_pb2.Artifact, root: str, part: Part | None, response: Response, *, has_body: bool
    ) -> None:
        try:
            opened = await self._in_thread(lambda: files.open_below(root, entry.uri), _OPEN_SECONDS)
        except (OSError, TimeoutError):  # whose text names places that only the operator should see
            raise errors.artifact_not_readable(entry.name) from None
        try:
            await self._send_opened(opened, entry, part, response, has_body=has_body)
        finally:
            self._threads.submit(opened.close)

    async def _send_opened(
        self,
        opened: files.Opened,
        entry: run_pb2.Artifact,
        part: Part | None,
        response: Response,
        *,
        has_body: bool,
    ) -> None:
        wanted = part or Part(0, entry.size_bytes)
        try:
            if await self._in_thread(opened.size, _OPEN_SECONDS) != entry.size_bytes:
                raise errors.artifact_corrupt(entry.name)
            await self._in_thread(lambda: opened.seek(wanted.start), _OPEN_SECONDS)
        except (OSError, TimeoutError):
            raise errors.artifact_not_readable(entry.name) from None
        await response.begin(206 if part else 200, _headers_of(entry, part, wanted))
        left = wanted.end - wanted.start
        if has_body:
            for count in files.pieces(left, _PIECE_BYTES):
                piece = await self._in_thread(functools.partial(opened.read, count), _READ_SECONDS)
                left -= count
                # The last piece follows only if all is what the run wrote; without it the caller sees that it is not.
                is_wrong = part is None and not left and opened.sha256 != entry.sha256
                if len(piece) < count or is_wrong:
                    raise errors.artifact_corrupt(entry.name)
                await response.go_on(piece)
        await response.end()

    async def _in_thread(self, work: Callable[[], _Result], seconds: float) -> _Result:
        async with asyncio.timeout(seconds):
            return await asyncio.get_running_loop().run_in_executor(self._threads, work)


def media_type_of(entry: run_pb2.Artifact) -> str:
    """Return the type that a file is sent with: never that of a script or style, which pages of the console would load."""
    given = entry.media_type
    is_loaded = any(word in given.lower() for word in ("script", "css", "wasm"))
    return given if _MEDIA_TYPE.fullmatch(given) and not is_loaded else _BINARY


def _headers_of(entry: run_pb2.Artifact, part: Part | None, wanted: Part) -> dict[str, str]:
    headers = {
        "content-type": media_type_of(entry),
        "content-length": str(wanted.end - wanted.start),
        "accept-ranges": "bytes",
        "etag": f'"{entry.sha256}"',
        # Never shown as a page of ours, whatever it says that it is.
        "content-disposition": f"attachment; filename*=UTF-8''{quote(entry.uri.rpartition('/')[2], safe='')}",
        "content-security-policy": "default-src 'none'; frame-ancestors 'none'; sandbox",
        "repr-digest": f"sha-256=:{b64encode(bytes.fromhex(entry.sha256)).decode()}:",
    }
    if part is not None:
        headers["content-range"] = f"bytes {part.start}-{part.end - 1}/{entry.size_bytes}"
    return headers
