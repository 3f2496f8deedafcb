"""A run and its flow run end with the same status, whatever Prefect and the worker did before."""

from __future__ import annotations

from collections.abc import Iterable

import pytest

from optaic.run.v1 import run_pb2, run_service_pb2
from run_service.domain.pairing import FlowRunState
from run_service.domain.statuses import ACTIVE
from support.pairing_states import ROWS
from support.run_service import refused
from support.workshop import Case, Workshop, word

_STATUS = {
    run_pb2.RUN_STATUS_COMPLETED: "completed",
    run_pb2.RUN_STATUS_CANCELLED: "cancelled",
}


def _end(run: run_pb2.Run) -> str:
    """Return how a run ended: its status, or the type of the error with which it failed."""
    return _STATUS.get(run.status) or run.error.type


async def _start_late(workshop: Workshop, cases: Iterable[Case]) -> None:
    """Let the living processes report what they have done."""
    for case in cases:
        if case.is_alive and case.row.ours in ACTIVE:
            await workshop.finish(case.run_id, case.flow_run_id, case.token)


async def test_every_combination_of_run_and_flow_run_ends_as_in_the_table(workshop: Workshop) -> None:
    service = workshop.service
    workshop.takes = False
    await service.leases.step()
    cases = [await workshop.prepare(row, is_alive=alive) for row in ROWS for alive in (False, True)]
    await workshop.pass_time(7)
    await _start_late(workshop, cases)
    workshop.takes = True
    await workshop.pass_time(53)  # a minute after the worker is back
    for case in cases:
        run = await service.get(case.run_id)
        assert word(run) not in ACTIVE, case
        assert _end(run) == case.expected, case
        assert await workshop.are_alike(run), case
    under_way = await service.orchestrator.list_under_way()
    assert under_way == []
    # Reports of a late worker have no lasting effect.
    for case in cases:
        if case.flow_run_id in service.orchestrator.flow_runs:
            service.orchestrator.flow_runs[case.flow_run_id] = FlowRunState.RUNNING
    await workshop.pass_time(60)
    for case in cases:
        assert await workshop.are_alike(await service.get(case.run_id)), case
    assert await service.orchestrator.list_under_way() == []
    service.clock.advance(600)
    await workshop.pass_time(60)
    assert await workshop.count_endings() == 0
    for flow_run_id in service.orchestrator.flow_runs:
        service.orchestrator.flow_runs[flow_run_id] = FlowRunState.RUNNING
    await workshop.pass_time(2)
    assert await service.orchestrator.list_under_way() == []
    for case in cases:
        assert await workshop.are_alike(await service.get(case.run_id)), case


async def _claimed(workshop: Workshop) -> tuple[run_pb2.Run, str]:
    """A run whose flow run a worker has claimed; the worker died."""
    service = workshop.service
    workshop.takes = False
    run = await service.submit(service.instances.add())
    await service.dispatcher.step()
    flow_run_id = (await service.get(run.run_id)).orchestrator_run_id
    service.orchestrator.flow_runs[flow_run_id] = FlowRunState.CLAIMED
    return run, flow_run_id


async def test_a_run_claimed_but_not_started_is_dispatched_again_with_an_activity(workshop: Workshop) -> None:
    service = workshop.service
    run, first = await _claimed(workshop)
    await workshop.pass_time(29)
    assert (await service.get(run.run_id)).orchestrator_run_id == first
    await workshop.pass_time(11)
    again = await service.get(run.run_id)
    assert again.status == run_pb2.RUN_STATUS_PENDING
    assert again.orchestrator_run_id not in {"", first}
    assert [request.key for request in service.orchestrator.creations] == [run.run_id, f"{run.run_id}.2"]
    assert service.orchestrator.flow_runs[first] is FlowRunState.CANCELLED
    assert "another flow run takes its place" in service.orchestrator.messages[first]
    response = await service.runs.ListActivities(run_service_pb2.ListActivitiesRequest(run_id=run.run_id))
    (activity,) = (each for each in response.activities if each.type == "pipeline_run.dispatched_again")
    assert activity.message == f"flow run {first} is CLAIMED and has not started the run"
    async with refused("FENCED"):
        await service.start(run.run_id, first)
    started = await service.start(run.run_id, again.orchestrator_run_id)
    assert started.run.status == run_pb2.RUN_STATUS_RUNNING


async def test_a_start_by_an_old_flow_run_is_refused_before_the_next_one_exists(workshop: Workshop) -> None:
    service = workshop.service
    run, first = await _claimed(workshop)
    await service.observer.step()
    for _ in range(9):
        service.clock.advance(5)
        await service.observer.step()
    assert (await service.get(run.run_id)).orchestrator_run_id == ""
    async with refused("FENCED"):
        await service.start(run.run_id, first)


async def test_a_run_that_no_worker_starts_is_given_up(workshop: Workshop) -> None:
    service = workshop.service
    run, _ = await _claimed(workshop)

    def claim_all() -> None:
        for flow_run_id, state in service.orchestrator.flow_runs.items():
            if state is FlowRunState.WAITING:
                service.orchestrator.flow_runs[flow_run_id] = FlowRunState.CLAIMED

    await workshop.pass_time(130, claim_all)
    lost = await service.get(run.run_id)
    assert (lost.status, lost.error.type) == (run_pb2.RUN_STATUS_FAILED, "WORKER_LOST")
    assert "claimed 3 flow runs" in lost.error.message
    assert len(service.orchestrator.flow_runs) == 3
    assert service.orchestrator.flow_runs[lost.orchestrator_run_id] is FlowRunState.FAILED
    others = [
        state for each, state in service.orchestrator.flow_runs.items() if each != lost.orchestrator_run_id
    ]
    assert others == [FlowRunState.CANCELLED] * 2
    following = await service.submit(service.instances.by_id[run.instance_id])
    assert following.run_number == 2


async def test_a_run_that_waits_for_a_worker_is_left_to_wait(workshop: Workshop) -> None:
    service = workshop.service
    workshop.takes = False
    run = await service.submit(service.instances.add())
    await workshop.pass_time(600)
    waiting = await service.get(run.run_id)
    assert waiting.status == run_pb2.RUN_STATUS_PENDING
    assert len(service.orchestrator.creations) == 1


async def test_after_an_absence_of_the_service_claimed_runs_get_their_full_time_again(
    workshop: Workshop,
) -> None:
    """No start could be accepted meanwhile."""
    service = workshop.service
    run, first = await _claimed(workshop)
    await workshop.pass_time(20)
    service.clock.advance(60)
    await workshop.pass_time(20)
    assert (await service.start(run.run_id, first)).run.status == run_pb2.RUN_STATUS_RUNNING


async def test_claims_do_not_expire_while_prefect_is_unavailable(workshop: Workshop) -> None:
    service = workshop.service
    run, first = await _claimed(workshop)
    await workshop.pass_time(20)
    service.orchestrator.is_down = True
    await workshop.pass_time(60)
    service.orchestrator.is_down = False
    await workshop.pass_time(20)
    assert (await service.get(run.run_id)).orchestrator_run_id == first
    await workshop.pass_time(20)
    assert (await service.get(run.run_id)).orchestrator_run_id != first


@pytest.mark.parametrize("state", [FlowRunState.CANCELLING, FlowRunState.CANCELLED])
@pytest.mark.parametrize("is_started", [False, True])
async def test_cancelling_a_flow_run_in_prefect_cancels_its_run(
    workshop: Workshop, state: FlowRunState, *, is_started: bool
) -> None:
    service = workshop.service
    workshop.takes = False
    instance = service.instances.add()
    instance.schedule.manual.SetInParent()
    instance.schedule.retry_policy.max_retries = 2
    instance.schedule.retry_policy.delay.FromSeconds(1)
    run = await service.submit(instance)
    await service.dispatcher.step()
    flow_run_id = (await service.get(run.run_id)).orchestrator_run_id
    if is_started:
        await service.start(run.run_id, flow_run_id)
    service.orchestrator.flow_runs[flow_run_id] = state
    await workshop.pass_time(6)
    cancelled = await service.get(run.run_id)
    assert cancelled.status == run_pb2.RUN_STATUS_CANCELLED
    assert cancelled.error.type == "CANCELLED"
    assert cancelled.error.message == "the flow run was cancelled in Prefect"
    response = await service.runs.ListActivities(run_service_pb2.ListActivitiesRequest(run_id=run.run_id))
    assert (response.activities[-1].type, response.activities[-1].actor) == (
        "pipeline_run.cancelled",
        "prefect",
    )
    assert (await service.outbox_types())[-1] == "cancelled"
    assert service.orchestrator.flow_runs[flow_run_id] is FlowRunState.CANCELLED
    service.clock.advance(60)
    await service.retrier.step()
    listed = await service.runs.ListRuns(run_service_pb2.ListRunsRequest())
    assert len(listed.runs) == 1


async def test_the_end_of_a_run_reaches_prefect_once_it_is_available(workshop: Workshop) -> None:
    service = workshop.service
    workshop.takes = False
    run = await service.submit(service.instances.add())
    await service.dispatcher.step()
    flow_run_id = (await service.get(run.run_id)).orchestrator_run_id
    started = await service.start(run.run_id, flow_run_id)
    service.orchestrator.flow_runs[flow_run_id] = FlowRunState.RUNNING
    service.orchestrator.is_down = True
    await service.complete(run.run_id, started.fencing_token)
    await workshop.pass_time(700)
    assert await workshop.count_endings() == 1
    service.orchestrator.is_down = False
    await workshop.pass_time(8)
    assert service.orchestrator.flow_runs[flow_run_id] is FlowRunState.COMPLETED


async def test_flow_runs_of_another_installation_are_left_alone(workshop: Workshop) -> None:
    service = workshop.service
    workshop.takes = False
    strangers = [
        service.orchestrator.add("default", run_id, "refresh", run_id=run_id and other)
        for run_id, other in (
            ("00000000-0000-4000-8000-000000000001", ""),
            ("00000000-0000-4000-8000-000000000002", "00000000-0000-4000-8000-000000000003"),
        )
    ]
    strangers.append(service.orchestrator.add("other", strangers[0], "no_such_kind"))
    for flow_run_id in strangers:
        service.orchestrator.flow_runs[flow_run_id] = FlowRunState.RUNNING
    await workshop.pass_time(100)
    assert {service.orchestrator.flow_runs[each] for each in strangers} == {FlowRunState.RUNNING}
    assert await workshop.count_endings() == 0
