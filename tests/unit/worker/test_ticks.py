"""Ticks of a schedule, which a worker turns into runs."""

from __future__ import annotations

import datetime as dt
from pathlib import Path

import pytest

from optaic.common.v1 import flow_pb2
from optaic.definition.v1.definition_pb2 import ENFORCEMENT_WARN, DefinitionVersion
from optaic.run.v1 import run_pb2
from support.worker import World, make_ticket
from worker.execution import Ending, Outcome, execute_run

REFRESH = flow_pb2.FLOW_KIND_REFRESH


def _list(folder: Path) -> list[Path]:
    """Return the files below a folder; the worker has empty folders for what it may have to deliver later."""
    return [path for path in folder.rglob("*") if not path.is_dir()]


@pytest.mark.parametrize(("timezone", "day"), [("", "2026-01-02"), ("Asia/Tokyo", "2026-01-03")])
async def test_the_day_of_a_scheduled_run_is_in_the_zone_of_the_dataset(
    world: World, tmp_path: Path, timezone: str, day: str
) -> None:
    content = DefinitionVersion()
    content.guardrail_contracts.add(name="fresh", check="freshness", enforcement=ENFORCEMENT_WARN)
    content.guardrail_contracts[0].parameters["max_age_days"] = 0
    world.definitions.content["probe"] = content
    dataset = world.dataset(definition="probe")
    dataset.dataset.timezone = timezone
    never = world.runs.submit(world.instances.put(dataset), REFRESH)
    ticket = make_ticket(never, run_id="")  # 16:30 in UTC
    ending = await execute_run(ticket, world.settings(tmp_path), world.guardians.start)
    assert ending.outcome is Outcome.COMPLETED
    *_, run = world.runs.stored.values()
    assert f"days before {day}; at most 0 days are allowed" in str(run.metrics["guardrail.fresh"])


async def test_a_scheduled_run_has_its_scheduled_time(world: World, tmp_path: Path) -> None:
    dataset = world.dataset()
    ticket = make_ticket(run_pb2.Run(instance_id=dataset.instance_id, flow_kind=REFRESH), run_id="")
    ending = await execute_run(ticket, world.settings(tmp_path), world.guardians.start)
    assert ending.outcome is Outcome.COMPLETED
    (tick,) = world.runs.ticks
    assert tick.scheduled_time.ToDatetime(dt.UTC) == ticket.scheduled_time
    assert tick.flow.flow_kind == REFRESH


async def test_a_scheduled_run_refused_at_admission_ends_quietly_with_its_reason(
    world: World, tmp_path: Path
) -> None:
    world.runs.refusal = "UPSTREAM_NOT_READY"
    dataset = world.dataset()
    ticket = make_ticket(run_pb2.Run(instance_id=dataset.instance_id, flow_kind=REFRESH), run_id="")
    ending = await execute_run(ticket, world.settings(tmp_path), world.guardians.start)
    assert ending == Ending(Outcome.CANCELLED, "UPSTREAM_NOT_READY: refused at the gate")
    assert not _list(tmp_path)


async def test_a_scheduled_run_of_a_flow_that_is_not_computed_ends_quietly(
    world: World, tmp_path: Path
) -> None:
    ticket = make_ticket(
        run_pb2.Run(instance_id=world.dataset().instance_id, flow_kind=flow_pb2.FLOW_KIND_TRAINING), run_id=""
    )
    world.runs.is_unsupported = True
    ending = await execute_run(ticket, world.settings(tmp_path), world.guardians.start)
    assert ending == Ending(Outcome.CANCELLED, "UNSUPPORTED_FLOW: not computed yet")
