"""What a run's code prints and logs reaches the orchestrator with its level; the end of the run says what readers need."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from datetime import UTC
from pathlib import Path
from typing import Any

from optaic.common.v1.flow_pb2 import FLOW_KIND_REFRESH
from optaic.run.v1 import run_pb2
from support.worker import World, make_ticket
from worker.execution import execute_run
from worker.log_delivery import delivering
from worker.log_spool import TimedLine

_SECRET = "hunter22!x"


async def _execute(world: World, folder: Path, **config: Any) -> tuple[run_pb2.Run, list[TimedLine]]:
    found: list[TimedLine] = []

    async def send(_flow_run_id: str, lines: Sequence[TimedLine]) -> None:
        found.extend(lines)

    run = world.runs.submit(world.dataset(definition="probe", **config), FLOW_KIND_REFRESH)
    settings = world.settings(folder)
    async with delivering(settings.log_folder, send, 5) as logs:
        await execute_run(make_ticket(run), settings, world.guardians.start, logs=logs)
    return run, found


async def test_prints_and_records_reach_the_orchestrator_with_their_level(
    world: World, tmp_path: Path
) -> None:
    run, lines = await _execute(world, tmp_path, behaviour="talk")
    shown = [(each.line.level, each.line.logger, each.line.message) for each in lines]
    warning = shown.pop()
    assert shown == [
        (logging.INFO, "stdout", "printed"),
        (logging.INFO, "stdout", "on standard error"),
        (logging.INFO, "stdout", "by native code"),
        (logging.INFO, "my.code", "of level info"),
        (logging.ERROR, "my.code", "of two\nlines"),
        (logging.WARNING, "structured", "happened count=3"),
    ]
    assert (warning[:2], "UserWarning: take care" in warning[2]) == ((logging.WARNING, "py.warnings"), True)
    assert run.status == run_pb2.RUN_STATUS_COMPLETED
    assert world.runs.ends[-1].last_log_time.ToMicroseconds() == lines[-1].time
    kept = (Path(world.settings(tmp_path).run_output_folder) / f"{run.run_id}.log").read_text()
    assert "printed\n" in kept
    assert "ERROR my.code: of two\nlines\n" in kept


async def test_a_failed_run_reports_its_last_lines_and_its_traceback(world: World, tmp_path: Path) -> None:
    run, lines = await _execute(world, tmp_path, behaviour="talk", fails=True)
    assert run.error.type == "SourceNotFound"
    assert list(run.error.last_lines[:3]) == ["printed", "on standard error", "by native code"]
    (end,) = world.runs.ends
    assert "PluginError: there is no file panel.csv" in end.traceback
    assert end.last_log_time.ToMicroseconds() == lines[-1].time


async def test_secrets_reach_neither_the_log_nor_the_error(world: World, tmp_path: Path) -> None:
    _, lines = await _execute(world, tmp_path, behaviour="talk", fails=True, secret=_SECRET)
    told = "\n".join(each.line.message for each in lines) + str(world.runs.ends)
    assert _SECRET not in told
    assert told.count("***") >= 4


async def test_a_run_that_prints_nothing_says_so(world: World, tmp_path: Path) -> None:
    _, lines = await _execute(world, tmp_path)
    assert lines == []
    (end,) = world.runs.ends
    assert end.HasField("last_log_time")
    assert end.last_log_time.ToDatetime(UTC).year == 1970


async def test_a_run_that_fails_before_it_computes_says_so(world: World, tmp_path: Path) -> None:
    run = world.runs.submit(world.dataset(definition="probe"), FLOW_KIND_REFRESH)
    run.instance_revision = 99
    await world.execute(run, tmp_path)
    (end,) = world.runs.ends
    assert run.status == run_pb2.RUN_STATUS_FAILED
    assert end.HasField("last_log_time")


async def test_a_run_completes_while_its_log_cannot_be_delivered(world: World, tmp_path: Path) -> None:
    async def send(_flow_run_id: str, _lines: Sequence[TimedLine]) -> None:
        raise ConnectionError

    run = world.runs.submit(world.dataset(definition="probe", behaviour="talk"), FLOW_KIND_REFRESH)
    settings = world.settings(tmp_path)
    async with delivering(settings.log_folder, send, 0.1) as logs:
        await execute_run(make_ticket(run), settings, world.guardians.start, logs=logs)
    assert run.status == run_pb2.RUN_STATUS_COMPLETED
    assert len(list(settings.log_folder.iterdir())) == 1, "the lines wait for the next worker"
