"""Publish live messages through Centrifugo's HTTP API (version 6); the only file that knows it."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping, Sequence
from typing import Any

import httpx

from servicekit.centrifugo import CentrifugoSettings
from servicekit.outlet import Publication, PublisherAwayError, Refusal

# The server failed by itself, or has too much to do; every other code says that the command is wrong.
_PASSING = frozenset({100, 111})


class CentrifugoPublisher:
    """The port `Publisher` on Centrifugo."""

    def __init__(self, settings: CentrifugoSettings) -> None:
        self._longest_call = settings.centrifugo_timeout_seconds
        self._client = httpx.AsyncClient(
            base_url=settings.centrifugo_url.rstrip("/"),
            headers={"X-API-Key": settings.centrifugo_api_key, "Content-Type": "application/json"},
            timeout=settings.centrifugo_timeout_seconds,
            verify=settings.https_context(),
        )

    async def publish(self, publications: Sequence[Publication]) -> dict[int, Refusal]:
        """Send all in one call; return why some were not taken, by their place.

        Raises:
            PublisherAwayError: Centrifugo did not answer, failed, or gave an answer that is not its own.
        """
        answer = await self._call("batch", {"commands": [_command(each) for each in publications]})
        replies = answer.get("replies")
        if not isinstance(replies, list) or len(replies) != len(publications):
            raise PublisherAwayError("Centrifugo did not answer each command")
        refusals = {}
        for index, (publication, reply) in enumerate(zip(publications, replies, strict=True)):
            if error := _error_of(publication, reply):
                refusals[index] = Refusal(json.dumps(error), is_final=error.get("code") not in _PASSING)
        return refusals

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
        content = json.dumps(body, ensure_ascii=False).encode()
        await asyncio.sleep(0)  # writing and sending in one turn would hold the loop twice as long
        try:
            async with asyncio.timeout(self._longest_call):  # httpx limits each read, not all of them
                response = await self._client.post(f"/api/{method}", content=content)
            response.raise_for_status()
            answer = response.json()
        except (httpx.HTTPError, TimeoutError, ValueError) as error:
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


def _error_of(publication: Publication, reply: object) -> Mapping[str, Any]:
    """Return the error of a reply, or of one channel of its broadcast; empty if it was taken.

    Raises:
        PublisherAwayError: It is no reply to this publication.
    """
    match reply:
        case {"error": dict() as error}:
            return error
        case {"publish": dict()} | {"result": dict()}:
            return {}
        case {"broadcast": {"responses": [*answers]}} if len(answers) == len(publication.channels):
            errors = [found for each in answers if (found := _error_of(publication, each))]
            # What may be taken later is sent again, and a channel that has it already ignores it.
            return next(
                (each for each in errors if each.get("code") in _PASSING), errors[0] if errors else {}
            )
    raise PublisherAwayError(f"Centrifugo does not answer a command: {json.dumps(reply)[:200]}")
