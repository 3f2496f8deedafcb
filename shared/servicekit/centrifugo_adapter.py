"""Publish live messages through Centrifugo's HTTP API (version 6); the only file that knows it."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import httpx

from servicekit.centrifugo import CentrifugoSettings
from servicekit.outlet import Publication, PublisherAwayError

# The server failed by itself; everything else says that the command is wrong.
_INTERNAL = 100


class CentrifugoPublisher:
    """The port `Publisher` on Centrifugo."""

    def __init__(self, settings: CentrifugoSettings) -> None:
        self._client = httpx.AsyncClient(
            base_url=settings.centrifugo_url.rstrip("/"),
            headers={"X-API-Key": settings.centrifugo_api_key},
            timeout=settings.centrifugo_timeout_seconds,
            verify=settings.https_context(),
        )

    async def publish(self, publications: Sequence[Publication]) -> dict[int, str]:
        """Send all in one call; return why some were refused, by their place.

        Raises:
            PublisherAwayError: Centrifugo did not answer, or failed.
        """
        answer = await self._call("batch", {"commands": [_command(each) for each in publications]})
        replies = answer.get("replies")
        if not isinstance(replies, list) or len(replies) != len(publications):
            raise PublisherAwayError("Centrifugo did not answer each command")
        errors = {index: error for index, reply in enumerate(replies) if (error := _error_of(reply))}
        if any(error.get("code") == _INTERNAL for error in errors.values()):
            raise PublisherAwayError(f"Centrifugo failed: {json.dumps(next(iter(errors.values())))}")
        return {index: json.dumps(error) for index, error in errors.items()}

    async def ping(self) -> None:
        """Return if Centrifugo answers and knows the key.

        Raises:
            PublisherAwayError: It does not.
        """
        await self._call("info", {})

    async def close(self) -> None:
        """Close the connections."""
        await self._client.aclose()

    async def _call(self, method: str, body: dict[str, Any]) -> dict[str, Any]:
        try:
            response = await self._client.post(f"/api/{method}", json=body)
            response.raise_for_status()
            answer = response.json()
        except (httpx.HTTPError, ValueError) as error:
            raise PublisherAwayError(f"Centrifugo does not take {method}: {error!r}") from error
        if not isinstance(answer, dict) or answer.get("error"):
            raise PublisherAwayError(f"Centrifugo does not take {method}: {response.text[:200]}")
        return answer


def _command(publication: Publication) -> dict[str, Any]:
    options: dict[str, Any] = {"data": publication.data}
    if publication.version:
        options["version"] = publication.version
    if publication.idempotency_key:
        options["idempotency_key"] = publication.idempotency_key
    if len(publication.channels) == 1:
        return {"publish": {"channel": publication.channels[0], **options}}
    return {"broadcast": {"channels": list(publication.channels), **options}}


def _error_of(reply: dict[str, Any]) -> dict[str, Any]:
    """Return the error of a reply, or of one channel of its broadcast; empty if there is none."""
    found: dict[str, Any] = reply.get("error") or {}
    if found:
        return found
    responses = (reply.get("broadcast") or {}).get("responses") or []
    return next((each["error"] for each in responses if each.get("error")), {})
