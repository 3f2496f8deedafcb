"""Plugins that end their process, or leave processes behind: the run says what happened, and nothing lives on."""

import asyncio
import functools
from pathlib import Path

from optaic.client import AsyncClient
from optaic.run.v1 import run_pb2
from support.client import connected_client, create_dataset, create_project
from support.polling import eventually
from support.stack import RunningStack

SCHEMA = {"type": "object", "properties": {"how": {"type": "string"}, "folder": {"type": "string"}}}
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
    return await (await client.runs.submit(dying)).wait(timeout=60)


def has_ended(pid: int) -> bool:
    """Whether it does not exist, or is a zombie."""
    try:
        return Path(f"/proc/{pid}/stat").read_text(encoding="ascii").rsplit(")", 1)[1].split()[0] == "Z"
    except FileNotFoundError:
        return True


async def test_the_error_of_a_dead_process_has_its_last_output(stack: RunningStack) -> None:
    async with connected_client(stack) as client:
        project = await make_project(client)
        runs = await asyncio.gather(*(run_once(client, project, how) for how in SAID))
    for run, (how, said) in zip(runs, SAID.items(), strict=True):
        assert run.status == run_pb2.RUN_STATUS_FAILED, how
        assert said in run.error.message, how
        if how != "memory":  # which is an exception like others
            assert "line 30" in run.error.message.splitlines(), how


async def test_every_process_of_a_run_ends_with_it(stack: RunningStack, tmp_path: Path) -> None:
    async with connected_client(stack) as client:
        run = await run_once(client, await make_project(client), "daemons", folder=str(tmp_path))
        assert run.status == run_pb2.RUN_STATUS_COMPLETED, run.error
    for name in ("other", "session", "daemon"):
        pid = int((tmp_path / f"{name}.pid").read_text(encoding="ascii"))
        await eventually(functools.partial(has_ended, pid), message=f"{name} ends")
