"""status-service that publishes to a real Centrifugo, one instance of it, and tokens for its channels."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from joserfc import jwt
from joserfc.jwk import OctKey

from optaic.instance.v1 import instance_events_pb2
from optaic.rules.realtime import AUDIENCE, ISSUER, status_channel
from optaic.status.v1 import status_service_pb2 as api
from servicekit.ids import new_id
from support.centrifugo import TOKEN_KEY, CentrifugoServer, centrifugo_binary, centrifugo_server
from support.identities import caller
from support.polling import eventually
from support.status_service import (
    TENANT,
    RunningStatusService,
    flow_change,
    flow_statuses,
    instance,
    status_service,
)

ME = caller("viewer")


@dataclass
class World:
    """A service that publishes to a server, and an instance of it."""

    service: RunningStatusService
    server: CentrifugoServer
    instance_id: str

    async def tokens(self, metadata: Any = ME, **request: Any) -> api.CreateRealtimeTokenResponse:
        """Make tokens for the instance."""
        wanted = api.CreateRealtimeTokenRequest(**{"instance_ids": [self.instance_id], **request})
        answer: api.CreateRealtimeTokenResponse = await self.service.stub.CreateRealtimeToken(
            wanted, metadata=metadata
        )
        return answer

    async def create(self) -> str:
        """Create another instance; return its id."""
        instance_id = new_id()
        created = instance_events_pb2.InstanceCreated(instance=instance(instance_id))
        await self.service.applied(*await self.service.publish(created))
        channel = status_channel(TENANT, instance_id)
        # What is published comes a moment after what is stored; it is not what a test waits for.
        await eventually(lambda: self.server.history(channel))
        return instance_id

    async def delete(self, instance_id: str) -> None:
        """Delete an instance."""
        deleted = instance_events_pb2.InstanceDeleted(instance=instance(instance_id, revision=2))
        await self.service.applied(*await self.service.publish(deleted))

    async def change(self, revision: int, status: str, run_number: int) -> None:
        """Give the instance's flow a status."""
        change = flow_change(self.instance_id, status, version=run_number, run_number=run_number)
        await self.service.applied(*await self.service.publish(flow_statuses(revision, change)))


@contextlib.asynccontextmanager
async def realtime_world(nats_url: str, **settings: Any) -> AsyncIterator[World]:
    """Run both. The session's PostgreSQL must be running. Skip the test where there is no Centrifugo."""
    await asyncio.to_thread(centrifugo_binary)
    async with (
        centrifugo_server() as server,
        status_service(nats_url, auth="tokens", **server.settings, **settings) as service,
    ):
        world = World(service, server, "")
        world.instance_id = await world.create()
        yield world


def signed(key: str = TOKEN_KEY, **claims: Any) -> str:
    """Return a token as the service makes it, with other claims."""
    now = int(datetime.now(UTC).timestamp())
    own = {"iss": ISSUER, "aud": AUDIENCE, "sub": f"{TENANT}/viewer", "iat": now, "exp": now + 60}
    return jwt.encode({"alg": "HS256"}, {**own, **claims}, OctKey.import_key(key))
