"""Questions whether a server answers; each returns a bool and never raises."""

import asyncio
import contextlib

import grpc
import psycopg
from grpc_health.v1 import health_pb2, health_pb2_grpc

_TIMEOUT_SECONDS = 2.0
_OK = b" 200 "


async def http_answers(host: str, path: str) -> bool:
    """Whether GET answers 200. By hand: a client library costs more time to import than this start takes."""
    name, _, port = host.partition(":")
    try:
        async with asyncio.timeout(_TIMEOUT_SECONDS):
            reader, writer = await asyncio.open_connection(name, int(port))
            with contextlib.closing(writer):
                writer.write(f"GET {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n".encode())
                return _OK in await reader.readline()
    except (OSError, TimeoutError):
        return False


async def grpc_serves(address: str) -> bool:
    """Whether the standard health service says that all of this server is SERVING."""
    async with grpc.aio.insecure_channel(address, options=[("grpc.enable_http_proxy", 0)]) as channel:
        stub = health_pb2_grpc.HealthStub(channel)
        try:
            answer = await stub.Check(health_pb2.HealthCheckRequest(), timeout=_TIMEOUT_SECONDS)
        except grpc.aio.AioRpcError:
            return False
        return bool(answer.status == health_pb2.HealthCheckResponse.SERVING)


async def postgres_accepts(url: str) -> bool:
    """Whether a login works."""
    try:
        async with asyncio.timeout(_TIMEOUT_SECONDS):
            connection = await psycopg.AsyncConnection.connect(url, connect_timeout=2)
            await connection.close()
    except (psycopg.Error, OSError, TimeoutError):
        return False
    return True
