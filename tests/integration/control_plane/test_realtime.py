"""A subscriber of Centrifugo sees the same transitions as a watcher, while runs of a chain go through the four services."""

from __future__ import annotations

import asyncio

from devstack.postgres import Postgres
from optaic.common.v1 import flow_pb2
from optaic.status.v1 import status_service_pb2 as api
from servicekit.enums import enum_word
from support.centrifugo import centrifugo_binary, centrifugo_server
from support.control_plane import ControlPlane, control_plane
from support.scheduled_chains import ScheduledChains

Seen = list[tuple[str, int, str]]


async def test_a_subscriber_sees_what_a_watcher_sees(postgres_server: Postgres, nats_url: str) -> None:
    del postgres_server
    await asyncio.to_thread(centrifugo_binary)
    async with (
        centrifugo_server() as server,
        control_plane(nats_url, {"status": server.settings, "run": server.settings}) as plane,
    ):
        first, second = await ScheduledChains(plane).chain(2, "0 6 * * *")
        ids = [first.instance_id, second.instance_id]
        since = await _newest_revision(plane, ids)
        tokens = await plane.status.stub.CreateRealtimeToken(api.CreateRealtimeTokenRequest(instance_ids=ids))
        of_channel = {each.channel: each.instance_id for each in tokens.subscriptions}
        async with server.connect(tokens.connection_token) as client:
            for each in tokens.subscriptions:
                await client.subscribe(each.channel, each.token)
            for number, instance in enumerate((first, second, first), 1):
                run = await plane.run.submit(instance)
                flow_run = await plane.run.dispatched(run.run_id)
                started = await plane.run.start(run.run_id, flow_run)
                await plane.run.complete(run.run_id, started.fencing_token, digest=f"digest {number}")
                await plane.rest()
            watched = await _watched(plane, ids, since)
            received: Seen = []
            while len(received) < len(watched):
                push = await client.next_push()
                data = push["pub"]["data"]
                if data["revision"] > since:
                    received.append((of_channel[push["channel"]], data["revision"], data["status"]))
    for instance_id in ids:
        assert _of(received, instance_id) == _of(watched, instance_id)
    assert {status for _, _, status in _of(watched, ids[1])} >= {"running", "ready", "stale"}


def _of(seen: Seen, instance_id: str) -> Seen:
    return [each for each in seen if each[0] == instance_id]


async def _newest_revision(plane: ControlPlane, ids: list[str]) -> int:
    request = api.BatchGetInstanceStatusesRequest(instance_ids=ids)
    answer = await plane.status.stub.BatchGetInstanceStatuses(request)
    return max(int(each.revision) for each in answer.instance_statuses)


async def _watched(plane: ControlPlane, ids: list[str], since: int) -> Seen:
    """Return what a watcher sees after a revision, until now."""
    newest = await _newest_revision(plane, ids)
    watch = plane.status.stub.WatchInstanceStatuses(
        api.WatchInstanceStatusesRequest(instance_ids=ids, from_revision=since)
    )
    seen: Seen = []
    async for change in watch:
        if change.HasField("instance_status"):
            status = change.instance_status
            seen.append((status.instance_id, status.revision, enum_word(flow_pb2.Status, status.status)))
        if change.revision >= newest:
            break
    watch.cancel()
    return seen
