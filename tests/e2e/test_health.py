"""Health says what is missing, and takes out of service only what cannot serve."""

import asyncio
import signal

import grpc
import psutil
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from devstack.config import SERVICES
from support.polling import eventually
from support.stack import RunningStack

SERVING = health_pb2.HealthCheckResponse.SERVING
NOT_SERVING = health_pb2.HealthCheckResponse.NOT_SERVING
OBSERVED = {
    "instance": ["evidently", "mlflow", "nats", "prefect"],
    "run": ["nats", "prefect"],
    "lineage": ["nats"],
    "status": ["nats"],
}


async def statuses(address: str, names: list[str]) -> list[int]:
    async with grpc.aio.insecure_channel(address) as channel:
        stub = health_pb2_grpc.HealthStub(channel)
        return [(await stub.Check(health_pb2.HealthCheckRequest(service=name))).status for name in names]


@pytest.mark.parametrize("name", SERVICES)
async def test_a_service_serves_while_the_broker_is_silent(stack: RunningStack, name: str) -> None:
    """Writes wait in the outbox: a broker that is away is shown, and stops nobody."""
    address = getattr(stack.endpoints, name)
    watched = [f"dependency/{each}" for each in ("postgres", *OBSERVED[name])]

    async def is_well() -> bool:
        return set(await statuses(address, ["", *watched])) == {SERVING}

    await eventually(is_well, 60)  # MLflow comes last
    broker = psutil.Process((await asyncio.to_thread(stack.processes))["nats"])
    broker.send_signal(signal.SIGSTOP)
    try:

        async def is_shown() -> bool:
            return await statuses(address, ["dependency/nats"]) == [NOT_SERVING]

        await eventually(is_shown, 20)
        assert await statuses(address, ["", "dependency/postgres"]) == [SERVING, SERVING]
    finally:
        broker.send_signal(signal.SIGCONT)
    await eventually(is_well, 20)
