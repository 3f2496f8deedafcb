"""Plugins that end their process, or leave processes behind: the run says what happened, and nothing lives on."""

import asyncio
import os

import psutil

from optaic.client import AsyncClient
from optaic.run.v1 import run_pb2
from support.client import connected_client, create_dataset, create_project
from support.polling import PATIENCE
from support.stack import RunningStack

SCHEMA = {"type": "object", "properties": {"how": {"type": "string"}, "seconds": {"type": "string"}}}
SAID = {
    "exit 7": "exited with code 7",
    "exit 0": "exited with code 0",
    "SIGKILL": "killed by SIGKILL, probably out of memory",
    "SIGSEGV": "killed by SIGSEGV",
    "memory": "could not get the memory",
}


async def make_project(client: AsyncClient) -> str:
    content = {"version": "1.0.0", "code_ref": "support.dying_plugins:Dying", "parameters_schema": SCHEMA}
    await client.definitions.publish("dying", "pipeline", content)
    return await create_project(client, "deaths")


async def run_once(client: AsyncClient, project: str, how: str, **config: str) -> run_pb2.Run:
    dying = await create_dataset(client, project, how.replace(" ", "-"), "dying", {"how": how, **config})
    return await (await client.runs.submit(dying)).wait(timeout=PATIENCE)


def find_living(argument: str) -> list[int]:
    """Return the processes of the machine that have an argument and are no zombies."""
    return [
        process.pid
        for process in psutil.process_iter(["cmdline", "status"])
        if argument in (process.info["cmdline"] or ()) and process.info["status"] != psutil.STATUS_ZOMBIE
    ]


async def test_the_error_of_a_dead_process_has_its_last_output(stack: RunningStack) -> None:
    async with connected_client(stack) as client:
        project = await make_project(client)
        runs = await asyncio.gather(*(run_once(client, project, how) for how in SAID))
    for run, (how, said) in zip(runs, SAID.items(), strict=True):
        assert run.status == run_pb2.RUN_STATUS_FAILED, how
        assert said in run.error.message, how
        if how != "memory":  # which is an exception like others
            assert "line 30" in run.error.message.splitlines(), how


async def test_every_process_of_a_run_ends_with_it(stack: RunningStack) -> None:
    seconds = f"600.{os.getpid()}"  # by which its processes are known
    async with connected_client(stack) as client:
        run = await run_once(client, await make_project(client), "daemons", seconds=seconds)
        assert run.status == run_pb2.RUN_STATUS_COMPLETED, run.error
    assert run.metrics["processes_left"] == 3
    assert find_living(seconds) == []
