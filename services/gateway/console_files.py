"""The console: the page that `services/gateway/console` builds, served as it was built. It calls the API as any other caller does."""

from __future__ import annotations

import asyncio
import gzip
import hashlib
import mimetypes
from dataclasses import dataclass
from importlib import resources
from importlib.resources.abc import Traversable

from gateway import errors
from gateway.request import Request
from gateway.response import Response

PATH = "/console/"
_INDEX = f"{PATH}index.html"
_ASSETS = f"{PATH}assets/"
_FOR_EVER = "public, max-age=31536000, immutable"
_WORTH_PACKING = 1400  # bytes: what is smaller fits into a packet
# All that the page loads comes from here; nothing in it is a script of its own or of anybody else.
_POLICY = "; ".join(
    (
        "default-src 'none'",
        *("script-src 'self'", "worker-src 'self'", "connect-src 'self'", "style-src 'self'"),
        *("img-src 'self' data:", "frame-src 'self'", "base-uri 'none'", "form-action 'none'"),
        "frame-ancestors 'none'",
    )
)


@dataclass(frozen=True)
class _File:
    """A built file as it is sent, also packed by gzip."""

    media_type: str
    body: bytes
    packed: bytes
    etag: str


class Console:
    """The files of the console; they are read at their first request and kept."""

    def __init__(self, folder: Traversable | None = None) -> None:
        self._folder = folder or resources.files("gateway") / "built_console"
        self._files: dict[str, _File] = {}

    @staticmethod
    def takes(request: Request) -> bool:
        """Return whether the console answers: at its paths, and at the root where a person comes with a browser."""
        if request.path == "/":
            return "text/html" in request.headers.get("accept", "")
        return f"{request.path}/".startswith(PATH)

    async def serve(self, request: Request, response: Response) -> None:
        """Answer a GET or a HEAD.

        Raises:
            NotFoundError: PATH_NOT_FOUND; no file of the console has this name.
        """
        if not request.path.startswith(PATH):
            await response.answer(307, b"", "text/plain; charset=utf-8", {"location": PATH})
            return
        if not self._files:
            self._files = await asyncio.to_thread(_read, self._folder)
        is_asset = request.path.startswith(_ASSETS)
        # Every other path below is a page that the script draws.
        file = self._files.get(request.path if is_asset else _INDEX)
        if file is None:
            raise errors.no_such_path()
        headers = {
            "content-security-policy": _POLICY,
            "cache-control": _FOR_EVER if is_asset else "no-cache",
            "etag": file.etag,
            "vary": "accept-encoding",
        }
        if file.etag in request.headers.get("if-none-match", ""):
            await response.answer(304, b"", file.media_type, headers, has_body=False)
            return
        body = file.body
        if file.packed and "gzip" in request.headers.get("accept-encoding", ""):
            headers["content-encoding"] = "gzip"
            body = file.packed
        await response.answer(200, body, file.media_type, headers, has_body=request.method == "GET")


def _read(folder: Traversable) -> dict[str, _File]:
    """Return the files of a build by their paths."""
    files: dict[str, _File] = {}
    waiting = [(PATH, folder)]
    while waiting:
        path, place = waiting.pop()
        for each in place.iterdir():
            if each.is_dir():
                waiting.append((f"{path}{each.name}/", each))
                continue
            body = each.read_bytes()
            kind = mimetypes.guess_type(each.name)[0] or "application/octet-stream"
            files[f"{path}{each.name}"] = _File(
                f"{kind}; charset=utf-8" if kind.startswith("text/") else kind,
                body,
                gzip.compress(body, mtime=0) if len(body) > _WORTH_PACKING else b"",
                f'"{hashlib.sha256(body).hexdigest()[:32]}"',
            )
    return files
