"""Several outside systems: each has its condition and its finalizer, and none holds up what does not need it."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import NoReturn

import pytest
import sqlalchemy as sa

from devstack.postgres import Postgres
from instance_service.ports import Ensured, MonitoringProject, OutsideUnavailableError
from instance_service.resources.instances.verdicts import Verdict
from instance_service.store import queue
from instance_service.use_cases.dependencies import Dependencies
from instance_service.use_cases.instances import reconciling
from instance_service.use_cases.instances.reconciling import record_verdicts
from optaic.instance.v1.instance_pb2 import (
    INSTANCE_STATE_ACTIVE,
    INSTANCE_STATE_DEGRADED,
    INSTANCE_STATE_DELETING,
    INSTANCE_STATE_PROVISIONING,
    Instance,
)
from optaic.instance.v1.instance_service_pb2 import DeleteInstanceRequest
from support.clock import FakeClock
from support.counterparts import FakeDeployments, FakeExperiments, FakeProjects
from support.definitions import model, publish
from support.instance_service import TENANT, RunningInstanceService, instance_database, running
from support.polling import eventually


async def _monitored(service: RunningInstanceService, project_id: str, name: str = "watched") -> Instance:
    pipeline = {"definitionName": "sp500_prices", "config": {"as_of": "2021-12-31"}}
    dataset = {"pipeline": pipeline, "monitoringEnabled": True}
    return await service.create({"projectId": project_id, "name": name, "dataset": dataset})


def _condition(instance: Instance) -> list[tuple[str, str]]:
    return [(condition.type, condition.reason) for condition in instance.conditions]


async def test_a_monitored_dataset_has_a_project_as_long_as_it_is_monitored(
    service: RunningInstanceService,
) -> None:
    project = await service.project()
    plain = await service.prices(project.project_id)
    watched = await _monitored(service, project.project_id)
    watched = await service.until_active(watched.instance_id)
    assert watched.dataset.evidently_project_id == watched.instance_id
    name = f"default.{watched.instance_id}"
    assert service.projects.stored == {
        name: (
            watched.instance_id,
            MonitoringProject(name, "watched", service.app.deps.installation_id),
        )
    }
    dataset = {"pipeline": {"definitionName": "sp500_prices"}, "monitoringEnabled": True}
    renamed = await service.update(
        watched.instance_id, {"name": "renamed", "dataset": dataset}, "name", "dataset"
    )
    assert renamed.dataset.evidently_project_id == watched.instance_id
    await eventually(lambda: service.projects.stored[name][1].title == "renamed")
    change = {"dataset": {"monitoringEnabled": False}}
    plainer = await service.update(watched.instance_id, change, "dataset.monitoring_enabled")
    assert not plainer.dataset.evidently_project_id
    await eventually(lambda: not service.projects.stored)
    assert plain.instance_id not in str(service.projects.stored)


async def test_a_system_that_is_down_degrades_only_instances_that_need_it(
    service: RunningInstanceService,
) -> None:
    project = await service.project()
    first = await _monitored(service, project.project_id, "first")
    await service.until_active(first.instance_id)
    service.projects.break_down()
    service.projects.stored.clear()
    second = await _monitored(service, project.project_id, "second")
    plain = await service.prices(project.project_id)
    assert plain.state == INSTANCE_STATE_ACTIVE
    said = [("EvidentlyProjectReady", "EvidentlyUnavailable")]
    found = await service.until(second.instance_id, lambda one: _condition(one) == said)
    assert found.state == INSTANCE_STATE_PROVISIONING
    assert all(flow.prefect_deployment_id for flow in found.flows)  # runs are dispatched meanwhile
    await service.update(first.instance_id, {"name": "other"}, "name")
    degraded = await service.until(first.instance_id, lambda one: one.state == INSTANCE_STATE_DEGRADED)
    assert _condition(degraded) == said
    since = degraded.conditions[0].since_time
    calls = service.projects.calls
    await eventually(lambda: service.projects.calls > calls + 2)
    again = await service.until(first.instance_id, lambda _: True)
    assert again.conditions[0].since_time == since
    service.projects.recover()
    for one in (first, second):
        assert not (await service.until_active(one.instance_id)).conditions
    assert len(service.projects.stored) == 2


async def test_an_outside_system_that_an_instance_no_longer_uses_causes_no_condition(
    service: RunningInstanceService,
) -> None:
    project = await service.project()
    first = await _monitored(service, project.project_id, "first")
    await service.until_active(first.instance_id)
    service.projects.break_down()
    second = await _monitored(service, project.project_id, "second")
    await service.update(first.instance_id, {"name": "other"}, "name")
    change = {"dataset": {"monitoringEnabled": False}}
    for one, state in ((first, INSTANCE_STATE_DEGRADED), (second, INSTANCE_STATE_PROVISIONING)):
        found = await service.until(one.instance_id, lambda each: each.conditions)
        assert found.state == state
        await service.update(one.instance_id, change, "dataset.monitoring_enabled")
        assert not (await service.until_active(one.instance_id)).conditions
    assert service.projects.stored
    service.projects.recover()
    await eventually(lambda: not service.projects.stored)


async def test_a_hanging_system_does_not_delay_instances_that_do_not_need_it(
    service: RunningInstanceService,
) -> None:
    project = await service.project()
    healthy, asked, answer = service.projects.ensure, asyncio.Event(), asyncio.Event()

    async def hang(desired: Sequence[MonitoringProject]) -> Ensured:
        asked.set()
        await answer.wait()
        return await healthy(desired)

    service.projects.ensure = hang  # type: ignore[method-assign]  # as the outside system is made to behave
    watched = await _monitored(service, project.project_id)
    await asked.wait()
    plain = await service.prices(project.project_id)
    assert plain.state == INSTANCE_STATE_ACTIVE
    found = await service.until(watched.instance_id, lambda _: True)
    assert found.state == INSTANCE_STATE_PROVISIONING
    answer.set()
    await service.until_active(watched.instance_id)


async def test_an_unreadable_answer_is_a_condition_and_does_not_stop_other_instances(
    service: RunningInstanceService,
) -> None:
    project = await service.project()
    watched = await _monitored(service, project.project_id)
    plain = await service.prices(project.project_id)
    for one in (watched, plain):
        await service.until_active(one.instance_id)
    projects = service.projects
    healthy = projects.ensure, projects.delete, projects.pages

    def garble(*_: object) -> NoReturn:
        message = "name"
        raise KeyError(message)

    projects.ensure = projects.delete = projects.pages = garble  # type: ignore[assignment, method-assign]  # as the outside system is made to behave
    deployment = plain.flows[0].prefect_deployment_name
    del service.deployments.stored[deployment]
    await eventually(lambda: deployment in service.deployments.stored)
    await service.update(watched.instance_id, {"name": "renamed"}, "name")
    said = ("EvidentlyProjectReady", "EvidentlyProjectUnreadable")
    await service.until(watched.instance_id, lambda one: said in _condition(one))
    await service.instances.DeleteInstance(DeleteInstanceRequest(instance_id=watched.instance_id))
    await service.clear_lineage(watched.instance_id)
    await eventually(lambda: set(service.deployments.stored) == {deployment})
    projects.ensure, projects.delete, projects.pages = healthy  # type: ignore[method-assign]  # as the outside system is made to behave
    await eventually(lambda: not projects.stored)


async def test_each_system_has_its_finalizer(service: RunningInstanceService) -> None:
    project = await service.project()
    watched = await _monitored(service, project.project_id)
    await service.until_active(watched.instance_id)
    service.projects.break_down()
    await service.instances.DeleteInstance(DeleteInstanceRequest(instance_id=watched.instance_id))
    await service.clear_lineage(watched.instance_id)
    await eventually(lambda: not service.deployments.stored)
    said = ("EvidentlyProjectReady", "EvidentlyUnavailable")
    found = await service.until(watched.instance_id, lambda one: said in _condition(one))
    assert found.state == INSTANCE_STATE_DELETING
    again = await _monitored(service, project.project_id)  # the name is free meanwhile
    service.projects.recover()

    async def gone() -> bool:
        return (await service.row_counts())["instances"] == 4  # the new one and its components

    await eventually(gone)
    await service.until_active(again.instance_id)
    assert set(service.projects.stored) == {f"default.{again.instance_id}"}


async def test_a_refused_removal_is_a_condition_of_its_instance_only(
    service: RunningInstanceService, monkeypatch: pytest.MonkeyPatch
) -> None:
    told: set[str] = set()

    async def listen(
        deps: Dependencies, tenant_id: str, found: Sequence[tuple[Instance, Sequence[Verdict]]]
    ) -> set[str]:
        told.update(one.name for one, verdicts in found if any(each.problem for each in verdicts))
        return await record_verdicts(deps, tenant_id, found)

    monkeypatch.setattr(reconciling, "record_verdicts", listen)
    project = await service.project()
    doomed, other = [await _monitored(service, project.project_id, name) for name in ("doomed", "other")]
    plain, bystander = [await service.prices(project.project_id, name) for name in ("plain", "bystander")]
    for one in (doomed, other, plain, bystander):
        await service.until_active(one.instance_id)
    systems = service.deployments, service.projects
    for system in systems:
        system.kept.update(name for name in system.stored if doomed.instance_id in name)

    async def delete(one: Instance) -> None:
        await service.instances.DeleteInstance(DeleteInstanceRequest(instance_id=one.instance_id))

    def holds(one: Instance) -> bool:
        return any(one.instance_id in name for system in systems for name in system.stored)

    await delete(doomed)
    said = {
        ("PrefectDeploymentReady", "PrefectDeploymentRefused"),
        ("EvidentlyProjectReady", "EvidentlyProjectRefused"),
    }
    await service.until(doomed.instance_id, lambda one: said <= set(_condition(one)))
    await delete(other)
    await delete(plain)
    schedule = {"cron": {"expression": "1 1 * * *", "timezone": "UTC"}}
    await service.update(bystander.instance_id, {"schedule": schedule}, "schedule")
    deployment = bystander.flows[0].prefect_deployment_name
    await eventually(lambda: service.deployments.stored[deployment][1].timings)
    await eventually(lambda: not holds(other) and not holds(plain))
    assert holds(doomed)
    assert told == {"doomed"}
    for system in systems:
        system.kept.clear()
    await eventually(lambda: not holds(doomed))


async def test_an_orphan_that_may_not_be_removed_hides_no_other_drift(
    service: RunningInstanceService,
) -> None:
    project = await service.project()
    watched, lost = [await _monitored(service, project.project_id, name) for name in ("watched", "lost")]
    for one in (watched, lost):
        await service.until_active(one.instance_id)
    orphan = f"default.{project.project_id}"
    stranger = MonitoringProject(orphan, "nobody", service.app.deps.installation_id)
    service.projects.kept.add(orphan)
    service.projects.stored = {orphan: (project.project_id, stranger), **service.projects.stored}
    name = f"default.{watched.instance_id}"
    service.projects.edit(name, title="hacked")
    del service.projects.stored[f"default.{lost.instance_id}"]
    await eventually(lambda: service.projects.stored[name][1].title == "watched")
    await eventually(lambda: f"default.{lost.instance_id}" in service.projects.stored)
    assert orphan in service.projects.stored

    async def fail(_: Sequence[str]) -> NoReturn:
        raise OutsideUnavailableError("EvidentlyUnavailable", "it answers to all but this")

    service.projects.delete = fail  # type: ignore[assignment, method-assign]  # as the outside system is made to behave
    service.projects.edit(name, title="hacked")
    await eventually(lambda: service.projects.stored[name][1].title == "watched")


async def test_drift_is_repaired_and_orphans_are_removed(service: RunningInstanceService) -> None:
    project = await service.project()
    watched = await _monitored(service, project.project_id)
    await service.until_active(watched.instance_id)
    name = f"default.{watched.instance_id}"
    service.projects.edit(name, title="hacked")
    await eventually(lambda: service.projects.stored[name][1].title == "watched")
    del service.projects.stored[name]
    await eventually(lambda: name in service.projects.stored)
    orphan = f"default.{project.project_id}"
    installation_id = service.app.deps.installation_id
    service.projects.stored[orphan] = (
        project.project_id,
        MonitoringProject(orphan, "nobody", installation_id),
    )
    await eventually(lambda: orphan not in service.projects.stored)
    assert name in service.projects.stored


async def test_a_late_report_of_a_difference_is_checked_again(service: RunningInstanceService) -> None:
    prices = await service.prices((await service.project()).project_id)
    seen = await service.until_active(prices.instance_id)
    deps = service.app.deps
    slow = Verdict("PrefectDeploymentReady", problem=OutsideUnavailableError("PrefectUnavailable", "late"))
    quick = Verdict("PrefectDeploymentReady")
    lease = datetime.now(UTC) + timedelta(hours=1)
    async with deps.database.infra() as connection:
        await connection.execute(sa.text("update reconciliations set due_time = :lease"), {"lease": lease})
    # Who works on it since then saw it as it was before this.
    assert not await record_verdicts(deps, TENANT, [(seen, [slow])])
    assert await record_verdicts(deps, TENANT, [(seen, [quick])])
    async with deps.database.infra() as connection:
        await queue.settle(connection, [queue.Claim(TENANT, seen.instance_id, lease, 1)])
    healed = await service.until_active(prices.instance_id)
    assert not healed.conditions


async def test_a_finding_about_an_older_revision_is_not_written(
    service: RunningInstanceService,
) -> None:
    prices = await service.prices((await service.project()).project_id)
    seen = await service.until_active(prices.instance_id)
    await service.update(seen.instance_id, {"owner": "ada"}, "owner")
    changed = await service.until_active(seen.instance_id)

    def rename(instance: Instance) -> None:
        instance.name = "outdated"

    well = Verdict("ElsewhereReady", apply=rename)
    ill = Verdict("ElsewhereReady", problem=OutsideUnavailableError("ElsewhereDown", "late"))
    for verdict in (well, ill):
        assert await record_verdicts(service.app.deps, TENANT, [(seen, [verdict])]) == set()
    assert await service.until(seen.instance_id, lambda _: True) == changed


async def test_state_changes_stay_in_order_when_the_clock_goes_back(
    service: RunningInstanceService,
) -> None:
    prices = await service.prices((await service.project()).project_id)
    last = await service.until_active(prices.instance_id)
    past = FakeClock(datetime(2000, 1, 1, tzinfo=UTC))
    deps = replace(service.app.deps, clock=past)
    down = OutsideUnavailableError("ElsewhereDown", "says nothing")
    for problem, state in ((down, INSTANCE_STATE_DEGRADED), (None, INSTANCE_STATE_ACTIVE)):
        await record_verdicts(deps, TENANT, [(last, [Verdict("ElsewhereReady", problem=problem)])])
        found = await service.until(last.instance_id, lambda _: True)
        assert (found.state, found.revision) == (state, last.revision)
        assert found.update_time.ToNanoseconds() > last.update_time.ToNanoseconds()
        last = found


async def test_the_message_of_a_condition_is_updated_when_its_text_changes(
    service: RunningInstanceService,
) -> None:
    prices = await service.prices((await service.project()).project_id)
    first = await service.until_active(prices.instance_id)

    async def complain(message: str) -> Instance:
        seen = await service.until(first.instance_id, lambda _: True)
        problem = OutsideUnavailableError("ElsewhereDown", message)  # of no system that would be well again
        await record_verdicts(
            service.app.deps, TENANT, [(seen, [Verdict("ElsewhereReady", problem=problem)])]
        )
        return await service.until(first.instance_id, lambda _: True)

    said = await complain("no answer from 127.0.0.1:4711 at 17:01:02.5")
    assert said.state == INSTANCE_STATE_DEGRADED
    assert said.update_time.ToNanoseconds() > first.update_time.ToNanoseconds()
    assert await complain("no answer from 127.0.0.1:4712 at 17:01:03.7") == said
    for message in ("version 3 is gone", "version 4 is gone", "x" * 5000):
        (condition,) = (await complain(message)).conditions
        assert condition.message[:900] == message[:900]
        assert condition.since_time == said.conditions[0].since_time
    assert (await complain("x" * 4000)).update_time == said.update_time


async def test_installations_that_share_the_outside_systems_leave_each_other_alone(
    postgres_server: Postgres, nats_url: str
) -> None:
    del postgres_server
    outside = FakeDeployments(), FakeExperiments(), FakeProjects()
    async with (
        instance_database() as one,
        instance_database() as two,
    ):
        async with running(nats_url, one, *outside) as production:
            project = await production.project()
            watched = await _monitored(production, project.project_id)
            await publish(production, "linear")
            learned = await production.create(model(project.project_id, "m", watched.instance_id))
            for instance in (watched, learned):
                await production.until_active(instance.instance_id)
            stored = [dict(system.stored) for system in outside]
            assert all(stored)
            orphan = f"default.{project.project_id}"
            async with running(nats_url, two, *outside) as staging:
                installation_id = staging.app.deps.installation_id
                assert installation_id != production.app.deps.installation_id
                thing = MonitoringProject(orphan, "nobody", installation_id)
                outside[2].stored[orphan] = (project.project_id, thing)
                await eventually(lambda: orphan not in outside[2].stored)  # it has looked at everything
            assert [dict(system.stored) for system in outside] == stored
        async with running(nats_url, two, *outside) as again:
            assert again.app.deps.installation_id == installation_id
