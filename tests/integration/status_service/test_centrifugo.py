"""The Centrifugo adapter against a real HTTP server that speaks its batch API."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest

from devstack.postgres import Postgres
from optaic.common.v1 import flow_pb2
from optaic.instance.v1 import instance_events_pb2
from optaic.status.v1 import status_pb2
from servicekit.ids import new_id
from status_service.centrifugo_adapter import CentrifugoStatusPublisher
from support.polling import eventually
from support.status_service import flow_change, flow_statuses, instance, status_service


class _FakeCentrifugo:
    """Answers `POST /api/batch` and remembers what it was asked."""

    def __init__(self) -> None:
        self.url = ""
        self.requests: list[tuple[str, dict[str, str], dict[str, Any]]] = []
        self.reply: dict[str, Any] = {"replies": []}

    @contextlib.asynccontextmanager
    async def serve(self) -> AsyncIterator[_FakeCentrifugo]:
        server = await asyncio.start_server(self._answer, "127.0.0.1", 0)
        async with server:
            self.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
            yield self

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = (await reader.readuntil(b"\r\n\r\n")).decode()
        lines = head.split("\r\n")
        headers = {
            name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines[1:])
        }
        body = await reader.readexactly(int(headers["content-length"]))
        self.requests.append((lines[0], headers, json.loads(body)))
        answer = json.dumps(self.reply).encode()
        head = f"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: {len(answer)}\r\nConnection: close\r\n\r\n"
        writer.write(head.encode() + answer)
        await writer.drain()
        writer.close()


def _status(number: int = 0) -> status_pb2.InstanceStatus:
    return status_pb2.InstanceStatus(
        instance_id=f"i{number}", status=flow_pb2.STATUS_NOT_INITIALIZED, last_run_id=f"r{number}"
    )


async def test_statuses_go_to_their_instances_channels_in_lower_case() -> None:
    async with _FakeCentrifugo().serve() as centrifugo:
        publisher = CentrifugoStatusPublisher(centrifugo.url, "key", 2)
        await publisher.publish("default", [_status(1), _status(2)])
        await publisher.close()
    ((line, headers, body),) = centrifugo.requests
    assert line == "POST /api/batch HTTP/1.1"
    assert headers["x-api-key"] == "key"
    assert body["commands"] == [
        {
            "publish": {
                "channel": f"instance:i{n}:status",
                "data": {"status": "not_initialized", "last_run_id": f"r{n}"},
            }
        }
        for n in (1, 2)
    ]


async def test_many_statuses_go_in_several_calls() -> None:
    async with _FakeCentrifugo().serve() as centrifugo:
        publisher = CentrifugoStatusPublisher(centrifugo.url, "key", 2)
        await publisher.publish("default", [_status(n) for n in range(1200)])
        await publisher.close()
    assert [len(body["commands"]) for _, _, body in centrifugo.requests] == [500, 500, 200]


async def test_a_refusal_is_an_error() -> None:
    async with _FakeCentrifugo().serve() as centrifugo:
        centrifugo.reply = {"replies": [{"error": {"code": 102, "message": "unknown channel"}}]}
        publisher = CentrifugoStatusPublisher(centrifugo.url, "key", 2)
        with pytest.raises(httpx.HTTPError, match="unknown channel"):
            await publisher.publish("default", [_status()])
        await publisher.close()


async def test_the_service_publishes_there_when_configured(postgres_server: Postgres, nats_url: str) -> None:
    del postgres_server
    instance_id = new_id()
    async with (
        _FakeCentrifugo().serve() as centrifugo,
        status_service(nats_url, centrifugo_url=centrifugo.url, centrifugo_api_key="key") as service,
    ):
        await service.publish(
            instance_events_pb2.InstanceCreated(instance=instance(instance_id)),
            flow_statuses(1, flow_change(instance_id, "READY", version=1, run_number=1)),
        )

        def words() -> list[str]:
            return [
                command["publish"]["data"]["status"]
                for _, _, body in centrifugo.requests
                for command in body["commands"]
            ]

        await eventually(lambda: "ready" in words())
