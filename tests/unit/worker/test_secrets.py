"""What user code says of a secret, by whatever way, leaves the worker without it: real processes, run-service a fake."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from optaic.common.v1 import flow_pb2
from optaic.plugins import Secrets
from servicekit import logging as service_logging
from support.guardians import forkserver
from support.logs import logged_by
from support.worker import World, running_world
from worker.execution import Outcome
from worker.run_output import OutputLimits, RunOutput

CANARY = "k4n4rie-Zx81"
LOGIN = "${OPTAIC_SECRET_CANARY}"
BOUND = {"OPTAIC_SECRET_CANARY": ["definition:dying"]}


@pytest.fixture
async def world(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[World]:
    monkeypatch.setenv("OPTAIC_SECRET_CANARY", CANARY)
    await forkserver.stop()  # one that runs already has the environment that it began with
    async with running_world() as running:
        yield running
    await forkserver.stop()


def _texts(folder: Path) -> dict[str, str]:
    return {
        str(path): path.read_bytes().decode(errors="replace") for path in folder.rglob("*") if path.is_file()
    }


@pytest.mark.parametrize("then", ["return", "raise", "exit 7", "SIGKILL"])
async def test_a_secret_shows_in_nothing_that_a_run_leaves(world: World, tmp_path: Path, then: str) -> None:
    dataset = world.dataset(definition="dying", how="tell secrets", then=then, login=LOGIN)
    run = world.runs.submit(dataset, flow_pb2.FLOW_KIND_REFRESH)
    with logged_by("worker", "debug") as log:
        ending = await world.execute(run, tmp_path, source_secrets=BOUND)
    assert (ending.outcome is Outcome.COMPLETED) == (then == "return")
    texts = _texts(tmp_path)
    said = {"log": log.getvalue(), "run": str(run), "state of the flow run": ending.message, **texts}
    assert [name for name, text in said.items() if CANARY in text] == []
    (output,) = (text for name, text in texts.items() if name.endswith(f"{run.run_id}.log"))
    assert output.endswith("half of it: ***\npostgresql://reader:***@db.example/prices\nlast: ***")
    if then == "return":
        assert run.metrics["source"] == "postgresql://reader:***@db.example/prices"
    if then == "raise":
        assert any(name.endswith("traceback.txt") and "ValueError" in text for name, text in texts.items())


def test_a_line_that_comes_in_parts_is_looked_at_as_a_whole(tmp_path: Path) -> None:
    output = RunOutput(OutputLimits(str(tmp_path / "run.log"), 1_000_000, 3))
    for part in ("url: postgresql://rea", "der:", CANARY[:3], CANARY[3:], "@db\n", "caf", "é"):
        output.write(part.encode())
    output.close()
    kept = (tmp_path / "run.log").read_text(encoding="utf-8")
    assert kept == "url: postgresql://reader:***@db\ncafé"
    assert output.tail == kept


def test_bytes_that_are_no_text_are_kept_as_they_are(tmp_path: Path) -> None:
    output = RunOutput(OutputLimits(str(tmp_path / "run.log"), 1_000_000, 3))
    output.write(b"\xff\xfe\n" + bytes(range(256)))
    output.close()
    assert (tmp_path / "run.log").read_bytes() == b"\xff\xfe\n" + bytes(range(256))


def test_lines_that_prefect_shows_hold_no_secret() -> None:
    lines: list[str] = []
    handler = logging.Handler()
    handler.emit = lambda record: lines.append(handler.format(record))  # type: ignore[method-assign] # a test's ear
    handler.addFilter(service_logging.hide_secrets)
    logger = logging.Logger("flow run")  # noqa: LOG001 - known to nobody else
    logger.addHandler(handler)
    url = f"ftp://reader:{CANARY}@files.example"
    logger.warning("read %s", url)
    logger.error("failed", exc_info=ValueError(url))
    assert "reader:***@files.example" in lines[0]
    assert "ValueError" in lines[1]
    assert CANARY not in "".join(lines)


def test_any_plugin_may_fill_in_references() -> None:
    secrets = Secrets({"OPTAIC_SECRET_PIN": "12"})
    assert secrets.fill("pin ${OPTAIC_SECRET_PIN}", "pin") == "pin 12"
    assert secrets.redact(ValueError("12 is wrong")) == "*** is wrong", "also where it is short"


@pytest.mark.parametrize(
    ("how", "then", "searches"),
    [("tell secrets", "return", "worker.execution.redact_value"), ("memory", "", "worker.failures.redact")],
)
async def test_secrets_in_a_report_are_hidden_without_blocking_the_event_loop(
    world: World, tmp_path: Path, how: str, then: str, searches: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of megabytes it takes seconds, in which no heartbeat could be sent."""
    on_loop: list[bool] = []

    def search(value: Any) -> Any:
        on_loop.append(asyncio._get_running_loop() is not None)
        return value

    monkeypatch.setattr(searches, search)
    dataset = world.dataset(definition="dying", how=how, then=then, folder=str(tmp_path), login=LOGIN)
    await world.execute(
        world.runs.submit(dataset, flow_pb2.FLOW_KIND_REFRESH), tmp_path, source_secrets=BOUND
    )
    assert on_loop
    assert not any(on_loop)
