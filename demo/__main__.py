"""`python -m demo`: start a stack, run the main job, write its record; the exit status is 0 only if every check passed."""

import argparse
import asyncio
import os
import shutil
import ssl
import sys
from pathlib import Path

import nats
import psycopg
from rich.console import Console

import devstack
from demo.equity_figure import draw_equity
from demo.job import Job
from demo.observer import observe
from demo.screen import Screen, print_metrics
from demo.stage import StepFailedError, Tools
from demo.summary import (
    describe_instances,
    describe_job,
    describe_runs,
    describe_versions,
    write_summary,
)
from devstack.logins import split_login
from optaic import storage
from optaic.client import AsyncClient
from optaic.errors import OptaicError

OUTPUT = Path("build/demo")
STATE = Path(".state/demo")


async def _nats_context(stack: devstack.Stack) -> ssl.SSLContext | None:
    """Return how the subscriber of the stack's first tenant connects to NATS."""
    holder = f"subscriber-{stack.settings.tenants[0]}"
    return await asyncio.to_thread(stack.endpoints.nats_context, holder)


async def _describe_servers(stack: devstack.Stack) -> dict[str, str]:
    """Return the versions of PostgreSQL and NATS, as the servers state them."""
    async with await psycopg.AsyncConnection.connect(stack.endpoints.postgres_admin) as connection:
        row = await (await connection.execute("show server_version")).fetchone()
    broker = await nats.connect(stack.endpoints.nats_subscriber, tls=await _nats_context(stack))
    try:
        version = broker.connected_server_version
        return {
            "postgresql": str(row[0]) if row else "",
            "nats": f"{version.major}.{version.minor}.{version.patch}",
        }
    finally:
        await broker.close()


async def _show_job(stack: devstack.Stack, console: Console) -> int:
    endpoints = stack.endpoints
    given = endpoints.s3_credentials(stack.settings.tenants[0])
    storage.install(storage.Access.from_environment({**os.environ, **given}))
    async with AsyncClient.connect(
        instance_address=endpoints.instance,
        run_address=endpoints.run,
        lineage_address=endpoints.lineage,
        status_address=endpoints.status,
        token="development",  # noqa: S106 - the development identity's well-known token
        certificates=endpoints.certificates_of("client"),
    ) as client:
        tools = Tools(
            endpoints.prefect_api,
            endpoints.mlflow,
            Path(endpoints.evidently_workspace),
            split_login(endpoints.prefect_login),
            split_login(endpoints.mlflow_login),
        )
        with Screen(console) as screen:
            async with observe(
                client, endpoints.nats_subscriber, screen.refresh, await _nats_context(stack)
            ) as observed:
                job = Job(client, observed, tools, screen.refresh, folder=OUTPUT)
                screen.follow(job)
                backtest = await job.run()
                screen.refresh()
        curve = await backtest.artifact("equity_curve")
        instances, runs = await describe_instances(job), await describe_runs(job)
    metrics = dict(backtest.metrics)
    figure = OUTPUT / "equity_curve.png"
    await asyncio.to_thread(draw_equity, curve, figure, title="momentum_backtest", metrics=metrics)
    versions = await describe_versions(tools, await _describe_servers(stack))
    write_summary(describe_job(job, instances, runs, backtest.run, versions, figure), OUTPUT / "summary.json")
    print_metrics(console, metrics)
    console.print(f"{OUTPUT / 'summary.json'}\n{figure}")
    return 0


def main() -> int:
    """Run the main job on a fresh stack."""
    parser = argparse.ArgumentParser(prog="python -m demo", description="Run the main job on a fresh stack.")
    parser.add_argument(
        "--object-store", choices=("seaweedfs",), help="keep all data in an object store of the stack's own"
    )
    chosen = {name: value for name, value in vars(parser.parse_args()).items() if value is not None}
    console = Console()
    settings = devstack.Settings(state=STATE, **chosen)
    state = devstack.State(settings.root)
    if state.supervisor() is not None:
        console.print(f"a demo is already running in {settings.root}", style="red")
        return 1
    devstack.down(settings)  # what a killed demo may have left
    shutil.rmtree(settings.root, ignore_errors=True)
    shutil.rmtree(OUTPUT, ignore_errors=True)
    OUTPUT.mkdir(parents=True)

    async def job(stack: devstack.Stack) -> int:
        return await _show_job(stack, console)

    console.print("Starting PostgreSQL, NATS, Prefect, MLflow, four services and a worker ...")
    try:
        return devstack.run(job, settings)
    except (StepFailedError, OptaicError, TimeoutError, devstack.StartError) as error:
        console.print(f"failed: {error}", style="red", highlight=False)
        console.print(f"logs: {state.logs}")
        return 1


if __name__ == "__main__":
    sys.exit(main())
