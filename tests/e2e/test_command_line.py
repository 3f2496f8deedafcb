"""A researcher works from the command line."""

import json
import os
import subprocess
import sys
from pathlib import Path

import devstack
from support.client import connected_client, create_dataset, create_project
from support.polling import PATIENCE
from support.stack import RunningStack

OPTAIC = Path(sys.executable).with_name("optaic")


def optaic(stack: RunningStack, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [OPTAIC, *arguments],
        env={**os.environ, **stack.client_environment()},
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )


async def test_run_list_watch_and_explain(stack: RunningStack) -> None:
    config = {"symbols": ["AAPL"], "start": "2020-01-02", "end": "2020-03-31"}
    async with connected_client(stack) as client:
        project = await create_project(client, "cli")
        name = f"prices-{project[-6:]}"
        prices = await create_dataset(client, project, name, "sp500_prices", config)
    submitted = optaic(stack, "run", "submit", name, "-o", "json")
    assert submitted.returncode == 0, submitted.stderr
    run_id = json.loads(submitted.stdout)["run_id"]
    watched = optaic(stack, "run", "watch", run_id)
    assert watched.returncode == 0, watched.stderr
    listed = json.loads(optaic(stack, "run", "list", name, "-o", "json").stdout)
    assert [run["status"] for run in listed] == ["RUN_STATUS_COMPLETED"]
    shown = json.loads(optaic(stack, "instance", "get", name, "-o", "json").stdout)
    assert shown["instance_id"] == prices.instance_id
    assert name in optaic(stack, "instance", "list").stdout
    explained = optaic(stack, "lineage", "explain", name, "-o", "json")
    assert explained.returncode == 0, explained.stderr
    assert json.loads(explained.stdout).get("explanations", []) == []


def test_the_audit_trail_names_each_change_and_is_intact(stack: RunningStack) -> None:
    created = json.loads(optaic(stack, "project", "create", "audited", "-o", "json").stdout)
    listed = optaic(stack, "audit", "list", "--method", "CreateProject", "-o", "json")
    assert listed.returncode == 0, listed.stderr
    (record,) = [
        each for each in json.loads(listed.stdout) if each["resource"] == f"projects/{created['project_id']}"
    ]
    assert (record["actor"], record["revision_after"]) == ("developer", "1")
    verified = optaic(stack, "audit", "verify")
    assert verified.returncode == 0, verified.stdout
    assert "CHANGED" not in verified.stdout
    for service in ("instance", "run", "lineage", "status"):
        assert f"{service}-service  intact" in verified.stdout


def test_an_unknown_instance_is_an_error_that_names_it(stack: RunningStack) -> None:
    refused = optaic(stack, "instance", "get", "nobody")
    assert refused.returncode == 3
    assert "nobody" in refused.stderr


def test_status_reports_that_the_stack_is_up(stack: RunningStack) -> None:
    assert "ready" in optaic(stack, "dev", "status").stdout


def test_the_first_command_that_the_stack_prints_works(stack: RunningStack, tmp_path: Path) -> None:
    printed = devstack.describe(stack.endpoints, devstack.State(stack.settings.root))
    (command,) = [line.split() for line in printed.splitlines() if line.endswith("instance list")]
    finished = subprocess.run(
        command,
        cwd=tmp_path,
        env=stack.client_environment(),
        capture_output=True,
        timeout=PATIENCE,
        check=False,
    )
    assert finished.returncode == 0, finished.stderr
