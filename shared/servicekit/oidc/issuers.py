"""Read the public keys of an issuer over HTTP, keep them, and read them again: in time, and once for a key that is not known."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import Any

import httpx
import structlog

from servicekit.errors import UnavailableError
from servicekit.oidc.rules import check_url, is_loopback
from servicekit.oidc.signatures import PublicKeys
from servicekit.oidc.strict_json import read_object

Fetch = Callable[[str], Awaitable[bytes]]

_MAXIMUM_BYTES = 256 * 1024
_TIMEOUT_SECONDS = 5.0  # for discovery and keys together
_MAXIMUM_WAITING = 64
_log = structlog.get_logger(__name__)


async def fetch(url: str) -> bytes:
    """Return the body at a URL: no redirect is followed, no encoding is undone, and its size is bounded.

    Raises:
        OSError: There is none; the text says why.
    """
    try:
        certificates = await asyncio.to_thread(httpx.create_ssl_context)  # it reads files
        async with (
            # A proxy of the environment is for other machines.
            httpx.AsyncClient(
                verify=certificates, timeout=_TIMEOUT_SECONDS, trust_env=not is_loopback(url)
            ) as client,
            client.stream(
                "GET", url, headers={"accept": "application/json", "accept-encoding": "identity"}
            ) as answer,
        ):
            if answer.status_code != httpx.codes.OK:
                raise OSError(f"{url} answers with status {answer.status_code}")
            body = bytearray()
            async for chunk in answer.aiter_raw():
                body += chunk
                if len(body) > _MAXIMUM_BYTES:
                    raise OSError(f"the answer of {url} is longer than {_MAXIMUM_BYTES} bytes")
            return bytes(body)
    except (httpx.HTTPError, httpx.InvalidURL) as error:
        raise OSError(f"{url} does not answer: {type(error).__name__}") from error


class Issuer:
    """An issuer with its keys as they were when last read.

    One read is under way at a time, and reads that callers cause begin at least `pause_seconds` apart: whoever invents key
    ids makes the issuer no more work than that. If a read fails, the earlier keys stay in force, and `problem` says why.
    """

    def __init__(
        self,
        url: str,
        *,
        refresh_seconds: float,
        pause_seconds: float = 30.0,
        first_pause_seconds: float = 2.0,
        fetch: Fetch = fetch,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self.url = url
        self.keys: PublicKeys | None = None
        self.problem = ""
        self._refresh_seconds = refresh_seconds
        self._pause_seconds = pause_seconds
        self._first_pause_seconds = first_pause_seconds
        self._fetch = fetch
        self._monotonic = monotonic
        self._began = float("-inf")
        self._reading: asyncio.Task[None] | None = None
        self._waiting = 0

    def refresh(self) -> None:
        """Begin to read the keys if it is time to; it does not wait."""
        if self.keys is None or self.problem:
            self._begin(self._pause())
        else:
            self._begin(self._refresh_seconds)

    async def read_again(self) -> None:
        """Wait for the read that is under way or may begin now; return at once if none may.

        Raises:
            UnavailableError: Too many calls wait already.
        """
        self._begin(self._pause())
        if self._reading is None:
            return
        if self._waiting >= _MAXIMUM_WAITING:
            raise self.unavailable()
        self._waiting += 1
        try:
            await asyncio.shield(self._reading)
        finally:
            self._waiting -= 1

    def unavailable(self) -> UnavailableError:
        """Return UNAVAILABLE: whether the token is valid cannot be said now."""
        return UnavailableError(
            "DEPENDENCY_UNAVAILABLE", f"the keys of the issuer {self.url} cannot be read just now; retry"
        )

    def _pause(self) -> float:
        return self._first_pause_seconds if self.keys is None else self._pause_seconds

    def _begin(self, pause: float) -> None:
        now = self._monotonic()
        if self._reading is None and now - self._began >= pause:
            self._began = now
            self._reading = asyncio.create_task(self._read(), name="oidc keys")

    async def _read(self) -> None:
        try:
            async with asyncio.timeout(_TIMEOUT_SECONDS):
                keys = await self._read_keys()
        except (OSError, ValueError) as error:  # TimeoutError is an OSError
            self.problem = str(error) or f"{self.url} does not answer in {_TIMEOUT_SECONDS:g} s"
        else:
            if self.keys is None or self.problem:
                _log.info("keys of the issuer are read", issuer=self.url, left_out=keys.left_out)
            self.keys, self.problem = keys, ""
        finally:
            self._reading = None

    async def _read_keys(self) -> PublicKeys:
        place = f"{self.url.rstrip('/')}/.well-known/openid-configuration"
        document = await self._read_document(place)
        if document.get("issuer") != self.url:
            raise ValueError(f"{place} is not valid: its issuer is not {self.url}")
        keys_url: Any = document.get("jwks_uri")
        if not isinstance(keys_url, str):
            raise ValueError(f"{place} is not valid: it has no jwks_uri")  # noqa: TRY004 - a fault of the document
        try:
            check_url(keys_url, allow_http=is_loopback(self.url))
        except ValueError as error:
            raise ValueError(f"{place} is not valid: jwks_uri: {error}") from None
        try:
            return PublicKeys(await self._read_document(keys_url))
        except ValueError as error:
            raise ValueError(f"the keys of {self.url} are not valid: {error}") from None

    async def _read_document(self, url: str) -> dict[str, Any]:
        body = await self._fetch(url)
        try:
            return read_object(body)
        except ValueError as error:
            raise ValueError(f"the answer of {url} is not valid: {error}") from None
