"""Idle clients of ours keep their connection; a client that does nothing but ping loses it."""

from __future__ import annotations

import grpc
from grpc_health.v1 import health, health_pb2, health_pb2_grpc

from servicekit.server import keep_connections
from support.polling import eventually

_PING = 1_000  # milliseconds; gRPC pings no more often
_SECONDS = 7.0  # more than four pings


async def _connect(
    ping: int, options: tuple[tuple[str, int], ...]
) -> tuple[grpc.aio.Channel, grpc.aio.Server]:
    """Return a channel that has made one call, and its server."""
    server = grpc.aio.server(options=options)
    health_pb2_grpc.add_HealthServicer_to_server(health.aio.HealthServicer(), server)
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    channel = grpc.aio.insecure_channel(
        f"127.0.0.1:{port}",
        options=(
            ("grpc.keepalive_time_ms", ping),
            ("grpc.keepalive_timeout_ms", 10_000),
            ("grpc.keepalive_permit_without_calls", 1),
            ("grpc.http2.max_pings_without_data", 0),
        ),
    )
    await health_pb2_grpc.HealthStub(channel).Check(health_pb2.HealthCheckRequest())
    return channel, server


async def _is_kept(ping: int, options: tuple[tuple[str, int], ...], seconds: float) -> bool:
    channel, server = await _connect(ping, options)
    try:
        await eventually(lambda: channel.get_state() is not grpc.ChannelConnectivity.READY, seconds)
    except AssertionError:
        return True
    finally:
        await channel.close()
        await server.stop(0)
    return False


def _never_idle(options: tuple[tuple[str, int], ...]) -> tuple[tuple[str, int], ...]:
    """Return the options without an end of idle connections, so that only pings can end one."""
    return tuple(option for option in options if option[0] != "grpc.max_connection_idle_ms")


async def test_an_idle_client_of_ours_is_kept() -> None:
    assert await _is_kept(_PING, _never_idle(keep_connections(_PING, 20 * _PING)), _SECONDS)


async def test_a_client_with_twice_as_many_pings_as_one_of_ours_is_sent_away() -> None:
    assert not await _is_kept(_PING, _never_idle(keep_connections(_PING, 2 * _PING)), _SECONDS)
