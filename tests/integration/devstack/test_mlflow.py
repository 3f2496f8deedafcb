"""The embedded MLflow at its first start."""

from __future__ import annotations

import asyncio

import httpx

from devstack import mlflow, ports, postgres
from devstack.postgres import Postgres
from devstack.processes import Process
from devstack.state import State

USER, PASSWORD = "optaic", "k4n4rie"
CALLS = ("experiments/search", "registered-models/search", "experiments/search")


async def test_first_calls_that_come_together_are_all_answered(
    postgres_server: Postgres, state: State
) -> None:
    """Each of the two stores makes all tables; made by two calls at once they waited for each other for ever."""
    database = "mlflow_first_start"
    await postgres.create_database(postgres_server.admin_url, database)
    own = postgres_server.admin_url.replace("postgresql://", "postgresql+psycopg://").rpartition("/")[0]
    port = ports.find_free()
    program = mlflow.make_program(state, port, f"{own}/{database}", f"{USER}:{PASSWORD}")
    process = Process(state, program)
    await process.start()
    try:
        await process.wait_ready(300)
        base = f"http://{ports.HOST}:{port}/api/2.0/mlflow"
        async with httpx.AsyncClient(auth=(USER, PASSWORD), trust_env=False, timeout=60) as client:

            async def ask(number: int) -> int:
                await asyncio.sleep(0.4 * number)  # so that the calls come while MLflow makes its tables
                return (await client.get(f"{base}/{CALLS[number]}", params={"max_results": 1})).status_code

            answers = await asyncio.gather(*map(ask, range(len(CALLS))))
        assert answers == [200, 200, 200]
    finally:
        await process.stop(10)
