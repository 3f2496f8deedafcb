"""Reads of status-service, whose statuses SQL has filled: GetInstanceStatus and BatchGetInstanceStatuses of 100.

Beside GetInstanceStatus, in the same run: a bare gRPC echo.
"""

from __future__ import annotations

import random
from typing import Any

import grpc
import psycopg

from bench.report import Row
from bench.stack import BenchStack, echo, percentile, running_services, timed
from optaic.common.v1 import flow_pb2
from optaic.instance.v1 import instance_pb2
from optaic.lineage.v1 import lineage_pb2
from optaic.status.v1 import status_pb2, status_service_pb2
from optaic.status.v1.status_service_pb2_grpc import StatusServiceStub
from servicekit.ids import new_id

INSTANCES = 10_000
_CALLERS = 16
_CALLS = 4_000
_BATCH = 100
_BATCHES = 200
_INSERT = """
    insert into instance_statuses (tenant_id, instance_id, project_id, kind, status, revision, update_time, body)
    select 'default', instance_id, 'p', 'dataset', 'READY', 1, now(), body
    from unnest(%s::uuid[], %s::bytea[]) as given (instance_id, body)
"""


async def measure() -> list[Row]:
    """Calls and statuses per second."""
    async with running_services(("status",)) as stack:
        instance_ids = await fill_statuses(stack)
        async with grpc.aio.insecure_channel(stack.endpoints.status) as channel, echo() as call:
            stub: Any = StatusServiceStub(channel)
            chosen = random.Random(7)

            async def get(instance_id: str) -> None:
                request = status_service_pb2.GetInstanceStatusRequest(instance_id=instance_id)
                await stub.GetInstanceStatus(request, metadata=stack.metadata(), timeout=30)

            async def batch_get(_: int) -> None:
                ids = chosen.sample(instance_ids, _BATCH)
                request = status_service_pb2.BatchGetInstanceStatusesRequest(instance_ids=ids)
                answer = await stub.BatchGetInstanceStatuses(request, metadata=stack.metadata(), timeout=30)
                assert len(answer.instance_statuses) == _BATCH

            await timed(get, instance_ids[:200], _CALLERS)  # warms up
            echo_rate, _ = await timed(lambda _: call(b"x" * 64), range(_CALLS), _CALLERS)
            rate, latencies = await timed(get, instance_ids[:_CALLS], _CALLERS)
            batch_rate, _ = await timed(batch_get, range(_BATCHES), 4)
    name = f"GetInstanceStatus, {_CALLERS} callers"
    return [
        Row(f"{name} (peer: bare gRPC echo)", rate, "1/s", echo_rate, echo_rate / rate),
        Row(f"{name}, p99", percentile(latencies, 0.99), "ms"),
        Row(f"BatchGetInstanceStatuses of {_BATCH}, 4 callers", batch_rate * _BATCH, "statuses/s"),
    ]


async def fill_statuses(stack: BenchStack) -> list[str]:
    """Store the statuses of many instances; return their ids."""
    bodies = {instance_id: _body(instance_id) for instance_id in (new_id() for _ in range(INSTANCES))}
    url = f"{stack.endpoints.postgres_admin.rsplit('/', 1)[0]}/optaic_status"
    async with await psycopg.AsyncConnection.connect(url, autocommit=True) as connection:
        await connection.execute(_INSERT, [list(bodies), list(bodies.values())])
        await connection.execute("vacuum analyze instance_statuses")
    return list(bodies)


def _body(instance_id: str) -> bytes:
    flow = status_pb2.FlowStatus(
        flow_kind=flow_pb2.FLOW_KIND_REFRESH,
        status=flow_pb2.STATUS_READY,
        activity=lineage_pb2.FLOW_ACTIVITY_IDLE,
        outcome=lineage_pb2.FLOW_OUTCOME_SUCCEEDED,
        is_fresh=True,
        version=3,
        run_number=3,
        last_run_id=new_id(),
        last_data_date="2024-12-31",
        is_aggregated=True,
    )
    return status_pb2.InstanceStatus(
        instance_id=instance_id,
        instance_name=f"prices_{instance_id[:8]}",
        project_id=new_id(),
        instance_kind=instance_pb2.INSTANCE_KIND_DATASET,
        status=flow_pb2.STATUS_READY,
        instance_state=instance_pb2.INSTANCE_STATE_ACTIVE,
        flows=[flow],
        last_run_id=flow.last_run_id,
    ).SerializeToString()
