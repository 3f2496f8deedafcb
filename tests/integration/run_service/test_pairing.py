"""However a run and its flow run are left, both end, and alike; over all that Prefect and the worker can have done."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import UTC, datetime

import grpc
import pytest

from optaic.instance.v1 import instance_pb2, schedule_pb2
from optaic.run.v1 import run_pb2, run_report_service_pb2, run_service_pb2
from run_service.domain import ACTIVE, RunStatus
from run_service.domain.pairing import FlowRunState, close
from run_service.store import endings
from support.pairing_states import ROWS, Row
from support.run_peers import flow_of
from support.run_service import RunningRunService, refused

_STATUS = {
    run_pb2.RUN_STATUS_COMPLETED: "completed",
    run_pb2.RUN_STATUS_CANCELLED: "cancelled",
}


def _end(run: run_pb2.Run) -> str:
    """How it ended: the status, or the type of the error with which it failed."""
    return _STATUS.get(run.status) or run.error.type


def _word(run: run_pb2.Run) -> RunStatus:
    return RunStatus(run_pb2.RunStatus.Name(run.status).removeprefix("RUN_STATUS_").lower())


@dataclass
class Case:
    """A row of the table, made real."""

    row: Row
    is_alive: bool
    instance: instance_pb2.Instance
    run_id: str = ""
    flow_run_id: str = ""
    token: str = ""

    @property
    def expected(self) -> str:
        return self.row.alive if self.is_alive else self.row.dead


class Workshop:
    """The service, and a worker that takes what waits in the queue, unless it is told to leave it."""

    def __init__(self, service: RunningRunService) -> None:
        self.service = service
        self.takes = True

    async def prepare(self, row: Row, *, is_alive: bool) -> Case:
        """Bring a run and its flow run where the row has them."""
        service = self.service
        case = Case(row, is_alive, service.instances.add())
        case.run_id = (await service.submit(case.instance)).run_id
        while await service.dispatcher.step():
            pass
        case.flow_run_id = (await service.get(case.run_id)).orchestrator_run_id
        if row.ours is not RunStatus.PENDING:
            case.token = (await service.start(case.run_id, case.flow_run_id)).fencing_token
        if row.ours is RunStatus.COMPLETED:
            await service.complete(case.run_id, case.token)
        elif row.ours is RunStatus.FAILED:
            await service.fail(case.run_id, case.token)
        elif row.ours is RunStatus.CANCELLED:
            await service.cancel(case.run_id)
        if row.prefect is None:
            service.orchestrator.delete_flow_run(case.flow_run_id)
        else:
            service.orchestrator.flow_runs[case.flow_run_id] = row.prefect
        return case

    async def pass_time(self, seconds: float, each: Callable[[], object] = lambda: None) -> None:
        """Let every loop look again and again, and the worker work."""
        service = self.service
        for _ in range(int(seconds)):
            service.clock.advance(1)
            await service.leases.step()
            for loop in (service.observer, service.dispatcher, service.ender):
                while await loop.step():
                    pass
            await service.sweeper.step()
            await service.ticker.step()
            if self.takes:
                await self.take_what_waits()
            each()

    async def take_what_waits(self) -> None:
        service = self.service
        for flow_run_id, state in list(service.orchestrator.flow_runs.items()):
            run_id = service.orchestrator.listed[flow_run_id].run_id
            if state is not FlowRunState.WAITING or not run_id:
                continue
            service.orchestrator.flow_runs[flow_run_id] = FlowRunState.RUNNING
            await self.finish(run_id, flow_run_id)

    async def finish(self, run_id: str, flow_run_id: str, token: str = "") -> None:
        """Execute a run to its end, as the process that has its flow run does; refused, it stops."""
        state = FlowRunState.COMPLETED
        try:
            token = token or (await self.service.start(run_id, flow_run_id)).fencing_token
            await self.service.complete(run_id, token)
        except grpc.aio.AioRpcError:
            state = FlowRunState.CANCELLED
        if flow_run_id in self.service.orchestrator.flow_runs:
            self.service.orchestrator.flow_runs[flow_run_id] = state

    async def are_alike(self, run: run_pb2.Run) -> bool:
        state = self.service.orchestrator.flow_runs.get(run.orchestrator_run_id)
        return close(FlowRunState(_word(run).upper()), state, is_settled=True) == "done"

    async def count_endings(self) -> int:
        async with self.service.app.deps.database.infra() as connection:
            rows = await connection.exec_driver_sql("select count(*) from endings")
        return int(rows.scalar_one())


@pytest.fixture
def workshop(service: RunningRunService) -> Workshop:
    return Workshop(service)


async def _start_late(workshop: Workshop, cases: Iterable[Case]) -> None:
    """The processes that live report what they have done."""
    for case in cases:
        if case.is_alive and case.row.ours in ACTIVE:
            await workshop.finish(case.run_id, case.flow_run_id, case.token)


async def test_every_combination_ends_as_the_table_says(workshop: Workshop) -> None:
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
        assert _word(run) not in ACTIVE, case
        assert _end(run) == case.expected, case
        assert await workshop.are_alike(run), case
    under_way = await service.orchestrator.list_under_way()
    assert under_way == []
    # What a late worker does afterwards does not last, however late it comes.
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


async def test_a_run_claimed_and_not_started_is_dispatched_again_and_says_so(workshop: Workshop) -> None:
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


async def test_a_start_that_comes_before_the_next_flow_run_is_made_is_refused(workshop: Workshop) -> None:
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


async def test_a_service_that_was_away_gives_claimed_runs_their_time_once_more(workshop: Workshop) -> None:
    """No start could be accepted meanwhile."""
    service = workshop.service
    run, first = await _claimed(workshop)
    await workshop.pass_time(20)
    service.clock.advance(60)
    await workshop.pass_time(20)
    assert (await service.start(run.run_id, first)).run.status == run_pb2.RUN_STATUS_RUNNING


async def test_while_prefect_is_away_no_claim_grows_old(workshop: Workshop) -> None:
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
async def test_cancelling_in_prefect_is_cancelling_here(
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


async def test_an_end_waits_for_a_prefect_that_is_away(workshop: Workshop) -> None:
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


def _scheduled(service: RunningRunService, catch_up: int = 0) -> instance_pb2.Instance:
    instance = service.instances.add()
    instance.schedule.CopyFrom(
        schedule_pb2.Schedule(
            cron=schedule_pb2.CronSchedule(expression="*/30 * * * *"),
            catch_up_policy=catch_up,  # type: ignore[arg-type]  # its number
        )
    )
    return instance


async def _runs(service: RunningRunService) -> list[run_pb2.Run]:
    return list((await service.runs.ListRuns(run_service_pb2.ListRunsRequest())).runs)


def _tick(service: RunningRunService, instance: instance_pb2.Instance, state: FlowRunState) -> str:
    flow_run_id = service.orchestrator.add(
        "default",
        instance.instance_id,
        "refresh",
        scheduled_time=datetime(2024, 1, 2, 3, 4, tzinfo=UTC),
    )
    service.orchestrator.flow_runs[flow_run_id] = state
    return flow_run_id


async def _start_tick(service: RunningRunService, instance: instance_pb2.Instance, flow_run_id: str) -> None:
    request = run_report_service_pb2.StartRunRequest(orchestrator_run_id=flow_run_id, executor="worker")
    request.scheduled.flow.CopyFrom(flow_of(instance))
    request.scheduled.scheduled_time.FromDatetime(datetime(2024, 1, 2, 3, 4, tzinfo=UTC))
    await service.reports.StartRun(request)


@pytest.mark.parametrize("state", [FlowRunState.CLAIMED, FlowRunState.RUNNING])
async def test_a_tick_that_was_claimed_and_not_started_is_run_by_another_flow_run(
    workshop: Workshop, state: FlowRunState
) -> None:
    service = workshop.service
    instance = _scheduled(service)
    lost = _tick(service, instance, state)
    await workshop.pass_time(29)
    assert await _runs(service) == []
    assert service.orchestrator.flow_runs[lost] is state
    await workshop.pass_time(10)
    (run,) = await _runs(service)
    assert (run.status, run.trigger) == (run_pb2.RUN_STATUS_COMPLETED, run_pb2.RUN_TRIGGER_SCHEDULE)
    assert run.scheduled_time.ToDatetime() == datetime(2024, 1, 2, 3, 4)  # noqa: DTZ001 - protobuf's are naive UTC
    assert run.orchestrator_run_id != lost
    assert service.orchestrator.flow_runs[lost] is FlowRunState.CANCELLED
    async with refused("FENCED"):
        await _start_tick(service, instance, lost)
    assert len(await _runs(service)) == 1


async def test_a_lost_tick_that_starts_before_its_turn_came_is_refused(workshop: Workshop) -> None:
    service = workshop.service
    instance = _scheduled(service)
    lost = _tick(service, instance, FlowRunState.CLAIMED)
    await service.sweeper.step()
    service.clock.advance(31)
    await service.sweeper.step()
    async with refused("FENCED"):
        await _start_tick(service, instance, lost)
    assert await _runs(service) == []
    async with service.app.deps.database.transaction("default") as connection:
        assert await endings.is_ending(connection, "default", lost)


async def test_a_lost_tick_is_counted_as_missed_where_none_is_caught_up_with(workshop: Workshop) -> None:
    service = workshop.service
    lost = _tick(service, _scheduled(service, catch_up=3), FlowRunState.CLAIMED)
    await workshop.pass_time(40)
    (run,) = await _runs(service)
    assert (run.run_number, run.status, run.error.type) == (
        0,
        run_pb2.RUN_STATUS_CANCELLED,
        "TICK_MISSED",
    )
    assert service.orchestrator.flow_runs[lost] is FlowRunState.CANCELLED


async def test_a_tick_cancelled_in_prefect_before_it_started_says_so(workshop: Workshop) -> None:
    service = workshop.service
    lost = _tick(service, _scheduled(service), FlowRunState.CANCELLING)
    await workshop.pass_time(2)
    (run,) = await _runs(service)
    assert (run.status, run.error.type) == (run_pb2.RUN_STATUS_CANCELLED, "TICK_CANCELLED")
    assert service.orchestrator.flow_runs[lost] is FlowRunState.CANCELLED


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
