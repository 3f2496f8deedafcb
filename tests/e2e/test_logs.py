"""A run that prints and fails: its log is followed live, and every place says why it failed."""

import asyncio
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from optaic.client import word
from optaic.errors import NotFoundError
from optaic.run.v1 import run_pb2
from support.client import connected_client, create_dataset, create_project, publish_test_pipelines
from support.polling import PATIENCE, eventually
from support.stack import RunningStack


def _optaic(stack: RunningStack, *arguments: str) -> str:
    """Return what the command prints."""
    return subprocess.run(
        [Path(sys.executable).with_name("optaic"), *arguments],
        env={**os.environ, **stack.client_environment()},
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=True,
    ).stdout


async def test_a_run_that_prints_and_fails_says_so_everywhere(stack: RunningStack) -> None:
    async with connected_client(stack) as client:
        await publish_test_pipelines(client)
        project = await create_project(client, "logs")
        failing = await create_dataset(client, project, "failing", "failing", {"value": 1})
        handle = await client.runs.submit(failing)
        followed = [line async for line in handle.watch_logs()]
        run = await handle.wait(timeout=PATIENCE)
        assert run.status == run_pb2.RUN_STATUS_FAILED
        assert [(word(line, "level"), line.logger, line.message) for line in followed] == [
            ("INFO", "stdout", "about to compute"),
            ("WARNING", "support.plugins", "that will not do"),
        ]
        assert [line async for line in handle.logs()] == followed
        assert [line async for line in handle.logs(min_level="warning")] == followed[1:]
        assert list(run.error.last_lines) == [
            "about to compute",
            "WARNING support.plugins: that will not do",
        ]
        assert "ArithmeticError: cannot compute" in await handle.traceback()

        async def told() -> bool:
            status = await client.status.get(failing)
            return status.flows[0].failure.type == "ArithmeticError"

        await eventually(told, PATIENCE)
        shown = await asyncio.to_thread(_optaic, stack, "status", "list", "--project", project)
        assert "ArithmeticError: cannot compute" in shown
        assert "never succeeded" not in shown
        shown = await asyncio.to_thread(_optaic, stack, "lineage", "explain", failing.instance_id)
        assert "ArithmeticError: cannot compute" in shown
        shown = await asyncio.to_thread(_optaic, stack, "run", "get", run.run_id)
        assert "about to compute" in shown
        shown = await asyncio.to_thread(_optaic, stack, "run", "logs", "-f", run.run_id, "-o", "json")
        assert [json.loads(line)["message"] for line in shown.splitlines()] == [
            line.message for line in followed
        ]
        with pytest.raises(NotFoundError, match="RUN_NOT_FOUND"):
            [line async for line in client.runs.logs(failing.instance_id)]
