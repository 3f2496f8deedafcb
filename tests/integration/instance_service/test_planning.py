"""Enabled schedules of which the orchestrator plans nothing: the instance says so, and no longer when it does."""

from __future__ import annotations

import datetime as dt
from typing import Any

import pytest

from instance_service.resources.instances import pending
from optaic.instance.v1.instance_pb2 import INSTANCE_STATE_ACTIVE, Instance
from optaic.instance.v1.instance_service_pb2 import ListProjectsRequest, PauseInstanceRequest
from support.instance_service import RunningInstanceService, instance_service, refusal

_DAILY = {"cron": {"expression": "0 9 * * *"}}
_NEVER = {"cron": {"expression": "0 0 31 2 1"}}


@pytest.fixture
async def hasty(postgres_server: Any, nats_url: str) -> Any:
    """A service that waits no time for plans."""
    del postgres_server
    async with instance_service(nats_url, planning_grace_seconds=0.001) as running:
        yield running


def _said(instance: Instance) -> list[tuple[str, str]]:
    return [(each.type, each.reason) for each in instance.conditions]


def _is_complaining(instance: Instance) -> bool:
    return _said(instance) == [("SchedulePlanned", "NothingPlanned")]


async def _scheduled(service: RunningInstanceService, schedule: dict[str, Any], name: str = "a") -> Instance:
    projects = {
        each.name: each for each in (await service.instances.ListProjects(ListProjectsRequest())).projects
    }
    project = projects.get("research") or await service.project()
    made = await service.prices(project.project_id, name, schedule=schedule)
    return await service.until_active(made.instance_id)


async def test_an_instance_without_a_planned_run_has_a_condition_until_one_is_planned(
    hasty: RunningInstanceService,
) -> None:
    made = await _scheduled(hasty, _DAILY)
    name = made.flows[0].prefect_deployment_name
    hasty.deployments.unplanned.add(name)
    found = await hasty.until(made.instance_id, _is_complaining)
    # It works, and whoever asks may run it: neither its state nor its revision moves.
    assert (found.state, found.revision) == (INSTANCE_STATE_ACTIVE, made.revision)
    hasty.deployments.unplanned.clear()
    await hasty.until(made.instance_id, lambda one: not one.conditions)


@pytest.mark.parametrize(
    "schedule", [{"manual": {}}, {**_DAILY, "enabled": False}, {"cron": {"expression": "0 9 * * 2"}}]
)
async def test_another_schedule_ends_the_complaint_at_once(
    hasty: RunningInstanceService, schedule: dict[str, Any]
) -> None:
    made = await _scheduled(hasty, _DAILY)
    hasty.deployments.unplanned.add(made.flows[0].prefect_deployment_name)
    await hasty.until(made.instance_id, _is_complaining)
    changed = await hasty.update(made.instance_id, {"schedule": schedule}, "schedule")
    assert _said(changed) == []


async def test_a_paused_instance_expects_nothing(hasty: RunningInstanceService) -> None:
    made = await _scheduled(hasty, _DAILY)
    hasty.deployments.unplanned.add(made.flows[0].prefect_deployment_name)
    await hasty.until(made.instance_id, _is_complaining)
    await hasty.instances.PauseInstance(PauseInstanceRequest(instance_id=made.instance_id))
    await hasty.until(made.instance_id, lambda one: not one.conditions)


async def test_a_time_that_is_far_away_need_not_be_planned_yet(hasty: RunningInstanceService) -> None:
    far = (dt.datetime.now(dt.UTC) + dt.timedelta(days=60)).date()
    yearly = await _scheduled(hasty, {"cron": {"expression": f"0 9 {far.day} {far.month} *"}}, "yearly")
    daily = await _scheduled(hasty, _DAILY, "daily")
    for each in (yearly, daily):
        hasty.deployments.unplanned.add(each.flows[0].prefect_deployment_name)
    await hasty.until(daily.instance_id, _is_complaining)
    assert not (await hasty.until_active(yearly.instance_id)).conditions


async def test_an_older_schedule_that_never_matches_gets_a_condition_and_can_be_kept(
    hasty: RunningInstanceService, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as earlier:  # a release that took it
        earlier.setattr(pending, "schedule_violations", lambda _: [])
        made = await _scheduled(hasty, _NEVER)
    hasty.deployments.unplanned.add(made.flows[0].prefect_deployment_name)
    found = await hasty.until(made.instance_id, _is_complaining)
    assert "'0 0 31 2 1', which never comes" in found.conditions[0].message
    await hasty.update(made.instance_id, {"description": "x"}, "description")
    again = {"schedule": {"cron": {"expression": "0 0 30 2 *"}}}
    refused = await refusal(hasty.update(made.instance_id, again, "schedule"))
    assert refused.field_reasons == {"instance.schedule.cron.expression": "INVALID_SCHEDULE"}


async def test_no_condition_is_set_before_the_orchestrator_had_time_to_plan(
    service: RunningInstanceService,
) -> None:
    made = await _scheduled(service, _DAILY)
    service.deployments.unplanned.add(made.flows[0].prefect_deployment_name)
    calls = service.deployments.calls
    await service.until(made.instance_id, lambda _: service.deployments.calls > calls + 6)
    assert not (await service.until_active(made.instance_id)).conditions
