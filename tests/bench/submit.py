"""SubmitRun per second against separate processes.

Beside it, in the same run: a bare gRPC echo and a bare two-row transaction on the same PostgreSQL. Then the rate in
each way to authenticate.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import grpc
import psycopg
from psycopg_pool import AsyncConnectionPool

from bench.admission import measure_admission
from bench.report import Row
from bench.stack import (
    BenchStack,
    at_rest,
    create_datasets,
    echo,
    for_each,
    percentile,
    running_services,
    timed,
)
from optaic.common.v1 import flow_pb2
from optaic.run.v1 import run_service_pb2, run_service_pb2_grpc

# Callers at once, of flows that never ran and of flows that have run before: those cost admission a look at their runs.
ROUNDS = ((16, "first runs"), (16, "further runs"), (64, "further runs"))
DATASETS = 1000
_PEER_CALLS = 3000
_WARM_UP = 50
_BATCH = 100


async def measure() -> list[Row]:
    """Rates and latencies of each round."""
    async with running_services() as stack:
        instance_ids = await create_datasets(stack, DATASETS)
        rows: list[Row] = []
        for concurrency, what in ROUNDS:
            rows += await _measure(stack, instance_ids, concurrency, what)
        rows.append(await _measure_batches(stack, instance_ids))
    return rows + await measure_admission()


async def _measure(stack: BenchStack, instance_ids: Sequence[str], concurrency: int, what: str) -> list[Row]:
    async with echo() as call:
        echo_rate, _ = await timed(lambda _: call(b"x" * 64), range(_PEER_CALLS), concurrency)
    transaction_rate, _ = await _transactions(stack, concurrency)
    async with grpc.aio.insecure_channel(stack.endpoints.run) as channel:
        stub: Any = run_service_pb2_grpc.RunServiceStub(channel)
        run_ids: list[str] = []
        refusals: list[grpc.aio.AioRpcError] = []

        async def submit(instance_id: str) -> None:
            request = run_service_pb2.SubmitRunRequest(
                instance_id=instance_id, flow_kind=flow_pb2.FLOW_KIND_REFRESH
            )
            while True:
                try:
                    run = await stub.SubmitRun(request, metadata=stack.metadata(), timeout=30)
                except grpc.aio.AioRpcError as error:
                    if error.code() is not grpc.StatusCode.UNAVAILABLE:
                        raise
                    refusals.append(error)  # overload; the time until it is accepted counts
                else:
                    run_ids.append(run.run_id)
                    return

        async def cancel(run_id: str) -> None:
            request = run_service_pb2.CancelRunRequest(run_id=run_id, reason="benchmark")
            await stub.CancelRun(request, metadata=stack.metadata(), timeout=30)

        await for_each(submit, instance_ids[:_WARM_UP], concurrency)
        await at_rest(stack)
        rate, latencies = await timed(submit, instance_ids[_WARM_UP:], concurrency)
        # One active run for each flow: make room for the next round.
        await for_each(cancel, run_ids, concurrency)
    name = f"SubmitRun, {concurrency} callers, {what}"
    return [
        Row(f"{name} (peer: bare gRPC echo)", rate, "1/s", echo_rate, echo_rate / rate),
        Row(
            f"{name} (peer: bare two-row transaction)", rate, "1/s", transaction_rate, transaction_rate / rate
        ),
        Row(f"{name}, p50", percentile(latencies, 0.5), "ms"),
        Row(f"{name}, p99", percentile(latencies, 0.99), "ms"),
        Row(f"{name}, refused as overload and repeated", len(refusals), "calls"),
    ]


async def _measure_batches(stack: BenchStack, instance_ids: Sequence[str]) -> Row:
    """Runs per second of one caller that submits batches, one after the other."""
    batches = [instance_ids[first : first + _BATCH] for first in range(0, len(instance_ids), _BATCH)]
    async with grpc.aio.insecure_channel(stack.endpoints.run) as channel:
        stub: Any = run_service_pb2_grpc.RunServiceStub(channel)

        async def submit(batch: Sequence[str]) -> list[str]:
            request = run_service_pb2.BatchSubmitRunsRequest(
                requests=[run_service_pb2.SubmitRunRequest(instance_id=each) for each in batch]
            )
            answer = await stub.BatchSubmitRuns(request, metadata=stack.metadata(), timeout=30)
            return [each.run.run_id for each in answer.results]

        async def cancel(run_id: str) -> None:
            request = run_service_pb2.CancelRunRequest(run_id=run_id, reason="benchmark")
            await stub.CancelRun(request, metadata=stack.metadata(), timeout=30)

        warm = await submit(batches[0])
        await for_each(cancel, warm, 16)
        await at_rest(stack)
        submitted: list[list[str]] = []

        async def submit_next(batch: Sequence[str]) -> None:
            submitted.append(await submit(batch))

        rate, _ = await timed(submit_next, batches, 1)
        await for_each(cancel, [run_id for run_ids in submitted for run_id in run_ids], 16)
    bare = await _bare_rows(stack)
    name = f"BatchSubmitRuns of {_BATCH}, 1 caller (peer: bare rows, {_BATCH} and {_BATCH} in a transaction)"
    return Row(name, rate * _BATCH, "runs/s", bare, bare / (rate * _BATCH))


async def _bare_rows(stack: BenchStack) -> float:
    """Rows per second, each with its outbox row, in transactions of a batch each."""
    async with await psycopg.AsyncConnection.connect(stack.endpoints.postgres_admin) as connection:

        async def insert(_: int) -> None:
            for table in ("bench_rows", "bench_outbox"):
                await connection.execute(
                    f"insert into {table} (payload) select unnest(%s::bytea[])".encode(),
                    [[b"x" * 400] * _BATCH],
                )
            await connection.commit()

        rate, _ = await timed(insert, range(50), 1)
    return rate * _BATCH


async def _transactions(stack: BenchStack, concurrency: int) -> tuple[float, list[float]]:
    """BEGIN, a row, its outbox row, COMMIT: what a submission cannot do without."""
    url = stack.endpoints.postgres_admin
    async with await psycopg.AsyncConnection.connect(url, autocommit=True) as connection:
        await connection.execute("drop table if exists bench_rows, bench_outbox")
        await connection.execute("create table bench_rows (id bigserial primary key, payload bytea not null)")
        await connection.execute("create table bench_outbox (like bench_rows including all)")
    async with AsyncConnectionPool(url, min_size=16, open=False) as pool:

        async def insert(_: int) -> None:
            async with pool.connection() as connection, connection.transaction():
                await connection.execute("insert into bench_rows (payload) values (%s)", [b"x" * 400])
                await connection.execute("insert into bench_outbox (payload) values (%s)", [b"x" * 400])

        return await timed(insert, range(_PEER_CALLS), concurrency)
