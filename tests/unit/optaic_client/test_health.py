"""What the client asks and reads of gRPC's health service, without its package."""

from concurrent.futures import ThreadPoolExecutor

import grpc
import pytest
from grpc_health.v1 import health, health_pb2, health_pb2_grpc

from optaic.client.connection import Connection
from optaic.errors import UnavailableError


@pytest.mark.parametrize("status", health_pb2.HealthCheckResponse.ServingStatus.values())
async def test_a_service_can_work_if_it_says_that_it_serves(status: int) -> None:
    server = grpc.server(ThreadPoolExecutor(max_workers=1))
    servicer = health.HealthServicer()
    servicer.set("", status)
    health_pb2_grpc.add_HealthServicer_to_server(servicer, server)
    address = f"127.0.0.1:{server.add_insecure_port('127.0.0.1:0')}"
    server.start()
    connection = Connection({"run": address}, "", 10)
    try:
        assert await connection.is_serving("run") == (status == health_pb2.HealthCheckResponse.SERVING)
    finally:
        await connection.close()
        server.stop(None).wait(10)


async def test_a_service_that_is_away_is_named() -> None:
    connection = Connection({"run": "127.0.0.1:1"}, "", 10)
    with pytest.raises(UnavailableError, match="run-service at"):
        await connection.is_serving("run")
    await connection.close()
