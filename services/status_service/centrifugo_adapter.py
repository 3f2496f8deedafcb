"""Live statuses through Centrifugo's HTTP API; the only file that knows it."""

import json
import ssl
from collections.abc import Sequence
from typing import Any

import httpx

from optaic.common.v1 import flow_pb2
from optaic.status.v1 import status_pb2
from servicekit.enums import enum_word

_COMMANDS_A_CALL = 500


class CentrifugoStatusPublisher:
    """`{"status": "ready", "last_run_id": "..."}` on channel `instance:<id>:status` for each change."""

    def __init__(
        self,
        url: str,
        api_key: str,
        timeout_seconds: float,
        certificates: ssl.SSLContext | bool = True,
    ) -> None:
        self._client = httpx.AsyncClient(
            base_url=url.rstrip("/"),
            headers={"X-API-Key": api_key},
            timeout=timeout_seconds,
            verify=certificates,
        )

    async def publish(self, tenant_id: str, statuses: Sequence[status_pb2.InstanceStatus]) -> None:
        """Send the statuses in batches.

        Raises:
            httpx.HTTPError: Centrifugo refused or did not answer.
        """
        del tenant_id  # ids are unique over all tenants, and the channel's name is given
        commands = [{"publish": _publication(status)} for status in statuses]
        for start in range(0, len(commands), _COMMANDS_A_CALL):
            body = {"commands": commands[start : start + _COMMANDS_A_CALL]}
            response = await self._client.post("/api/batch", json=body)
            response.raise_for_status()
            errors = [reply["error"] for reply in response.json().get("replies", []) if reply.get("error")]
            if errors:
                raise httpx.HTTPStatusError(
                    f"Centrifugo refused: {json.dumps(errors[0])}",
                    request=response.request,
                    response=response,
                )

    async def close(self) -> None:
        """Close the connections."""
        await self._client.aclose()


def _publication(status: status_pb2.InstanceStatus) -> dict[str, Any]:
    word = enum_word(flow_pb2.Status, status.status)
    return {
        "channel": f"instance:{status.instance_id}:status",
        "data": {"status": word, "last_run_id": status.last_run_id},
    }
