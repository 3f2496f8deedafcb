"""Dispatch: each run gets one flow run whatever fails, and its state is compared with the orchestrator's."""

import asyncio
import uuid
from collections.abc import Collection

import pytest
import sqlalchemy as sa

from optaic.run.v1 import run_pb2
from run_service.domain.pairing import FlowRunState
from run_service.ports import OrchestratorRefusedError
from run_service.reconcile.dispatching import Dispatcher
from run_service.reconcile.observing import Observer
from support.orchestrator_runs import FakeOrchestrator
from support.run_service import RunningRunService, refused


async def _dispatched(service: RunningRunService) -> tuple[run_pb2.Run, str]:
    run = await service.submit(service.instances.add())
    await service.dispatcher.step()
    return run, (await service.get(run.run_id)).orchestrator_run_id


async def test_a_submitted_run_gets_its_flow_run(service: RunningRunService) -> None:
    instance = service.instances.add()
    run = await service.submit(instance)
    assert await service.dispatcher.step()
    (created,) = service.orchestrator.creations
    assert (created.run_id, created.instance_id, created.flow_kind) == (
        run.run_id,
        instance.instance_id,
        "refresh",
    )
    assert created.tenant_id == "default"
    assert created.name == f"{instance.name}-1"
    assert (await service.get(run.run_id)).orchestrator_run_id == service.orchestrator.ids_by_key[run.run_id]
    assert not await service.dispatcher.step()


async def test_two_replicas_share_the_dispatches(service: RunningRunService) -> None:
    runs = [await service.submit(service.instances.add()) for _ in range(24)]
    twin = Dispatcher(service.app.deps, service.orchestrator)
    while any(await asyncio.gather(service.dispatcher.step(), twin.step())):
        pass
    created = [request.run_id for request in service.orchestrator.creations]
    assert sorted(created) == sorted(run.run_id for run in runs)


async def test_a_run_waits_for_an_orchestrator_that_is_down(service: RunningRunService) -> None:
    service.orchestrator.is_down = True
    run = await service.submit(service.instances.add())
    for _ in range(5):
        assert not await service.dispatcher.step()
        service.clock.advance(5)
    service.orchestrator.is_down = False
    await service.dispatcher.step()
    assert len(service.orchestrator.creations) == 1
    assert (await service.get(run.run_id)).orchestrator_run_id


async def test_a_run_waits_for_its_deployment(service: RunningRunService) -> None:
    service.orchestrator.has_every_deployment = False
    instance = service.instances.add()
    run = await service.submit(instance)
    await service.dispatcher.step()
    assert not service.orchestrator.creations
    service.orchestrator.deployments.add(("default", instance.instance_id, "refresh"))
    assert not await service.dispatcher.step()  # not due yet
    service.clock.advance(1)
    await service.dispatcher.step()
    assert (await service.get(run.run_id)).orchestrator_run_id


async def test_a_lost_answer_does_not_double_the_flow_run(service: RunningRunService) -> None:
    service.orchestrator.lost_answers = 1
    run = await service.submit(service.instances.add())
    await service.dispatcher.step()
    assert (await service.get(run.run_id)).orchestrator_run_id == ""
    service.clock.advance(5)
    await service.dispatcher.step()
    assert (await service.get(run.run_id)).orchestrator_run_id == service.orchestrator.ids_by_key[run.run_id]
    assert len(service.orchestrator.flow_runs) == 1


async def test_a_dispatch_claimed_by_a_dead_replica_is_taken_over(service: RunningRunService) -> None:
    run = await service.submit(service.instances.add())

    async def die(_: str) -> None:
        raise RuntimeError("killed")

    service.orchestrator.before_answer = die
    try:
        await service.dispatcher.step()
    except RuntimeError:
        service.orchestrator.before_answer = None
    assert not await service.dispatcher.step()
    service.clock.advance(61)
    await service.dispatcher.step()
    assert (await service.get(run.run_id)).orchestrator_run_id == service.orchestrator.ids_by_key[run.run_id]
    assert len(service.orchestrator.flow_runs) == 1


async def test_an_executor_that_comes_before_the_pairing_is_stored_must_try_again(
    service: RunningRunService,
) -> None:
    run = await service.submit(service.instances.add())

    async def start(flow_run_id: str) -> None:
        async with refused("RUN_NOT_DISPATCHED"):
            await service.start(run.run_id, flow_run_id)

    service.orchestrator.before_answer = start
    await service.dispatcher.step()
    await service.start(run.run_id)
    running = await service.get(run.run_id)
    assert running.status == run_pb2.RUN_STATUS_RUNNING
    assert running.orchestrator_run_id == service.orchestrator.ids_by_key[run.run_id]
    assert service.orchestrator.flow_runs[running.orchestrator_run_id] is FlowRunState.WAITING


async def test_a_run_cancelled_while_it_is_dispatched_leaves_no_flow_run(service: RunningRunService) -> None:
    run = await service.submit(service.instances.add())

    async def cancel(_: str) -> None:
        await service.cancel(run.run_id)

    service.orchestrator.before_answer = cancel
    await service.dispatcher.step()
    await service.ender.step()
    assert set(service.orchestrator.flow_runs.values()) == {FlowRunState.CANCELLED}
    while await service.dispatcher.step():
        pass


async def test_cancelling_ends_the_flow_run(service: RunningRunService) -> None:
    run, flow_run_id = await _dispatched(service)
    cancelled = await service.cancel(run.run_id, reason="wrong date", request_id="c1")
    assert cancelled.status == run_pb2.RUN_STATUS_CANCELLED
    assert cancelled.error == run_pb2.RunError(type="CANCELLED", message="wrong date")
    assert await service.cancel(run.run_id, reason="wrong date", request_id="c1") == cancelled
    await service.ender.step()
    assert service.orchestrator.flow_runs[flow_run_id] is FlowRunState.CANCELLED
    assert service.orchestrator.messages[flow_run_id] == "CANCELLED: wrong date"
    async with refused("RUN_ENDED"):
        await service.start(run.run_id, flow_run_id)
    assert not await service.dispatcher.step()


async def test_cancelling_finds_a_flow_run_whose_creation_was_not_answered(
    service: RunningRunService,
) -> None:
    service.orchestrator.lost_answers = 1
    run = await service.submit(service.instances.add())
    await service.dispatcher.step()
    await service.cancel(run.run_id)
    service.clock.advance(1)
    await service.dispatcher.step()
    await service.ender.step()
    assert set(service.orchestrator.flow_runs.values()) == {FlowRunState.CANCELLED}


async def test_a_flow_run_deleted_while_pending_is_made_again(service: RunningRunService) -> None:
    run, flow_run_id = await _dispatched(service)
    service.orchestrator.delete_flow_run(flow_run_id)
    service.clock.advance(6)
    await service.observer.step()
    await service.dispatcher.step()
    again = (await service.get(run.run_id)).orchestrator_run_id
    assert again == service.orchestrator.ids_by_key[run.run_id] != flow_run_id
    async with refused("FENCED"):
        await service.start(run.run_id, flow_run_id)  # an executor that still had the first one
    assert (await service.start(run.run_id, again)).run.status == run_pb2.RUN_STATUS_RUNNING


async def test_a_flow_run_that_crashed_fails_the_run_after_a_grace(service: RunningRunService) -> None:
    run, flow_run_id = await _dispatched(service)
    await service.start(run.run_id, flow_run_id)
    service.orchestrator.flow_runs[flow_run_id] = FlowRunState.CRASHED
    service.clock.advance(6)
    await service.observer.step()
    assert (await service.get(run.run_id)).status == run_pb2.RUN_STATUS_RUNNING
    service.clock.advance(10)
    await service.observer.step()
    failed = await service.get(run.run_id)
    assert failed.status == run_pb2.RUN_STATUS_FAILED
    assert failed.error.type == "ORCHESTRATOR_CRASHED"


async def test_a_report_within_the_grace_wins(service: RunningRunService) -> None:
    run, flow_run_id = await _dispatched(service)
    started = await service.start(run.run_id, flow_run_id)
    service.orchestrator.flow_runs[flow_run_id] = FlowRunState.COMPLETED
    service.clock.advance(6)
    await service.observer.step()
    await service.complete(run.run_id, started.fencing_token)
    service.clock.advance(60)
    await service.observer.step()
    assert (await service.get(run.run_id)).status == run_pb2.RUN_STATUS_COMPLETED


async def test_a_run_pending_for_a_day_is_given_up(service: RunningRunService) -> None:
    service.orchestrator.is_down = True
    run = await service.submit(service.instances.add())
    await service.dispatcher.step()
    service.clock.advance(86_401)
    await service.observer.step()
    failed = await service.get(run.run_id)
    assert (failed.status, failed.error.type) == (run_pb2.RUN_STATUS_FAILED, "DISPATCH_EXPIRED")


async def test_a_running_run_does_not_expire(service: RunningRunService) -> None:
    run, flow_run_id = await _dispatched(service)
    await service.start(run.run_id, flow_run_id)
    service.clock.advance(86_401)
    await service.observer.step()
    assert (await service.get(run.run_id)).status == run_pb2.RUN_STATUS_RUNNING


async def test_an_orchestrator_that_is_down_ends_no_run(service: RunningRunService) -> None:
    run, flow_run_id = await _dispatched(service)
    await service.start(run.run_id, flow_run_id)
    service.orchestrator.is_down = True
    for _ in range(5):
        service.clock.advance(20)
        await service.observer.step()
    assert (await service.get(run.run_id)).status == run_pb2.RUN_STATUS_RUNNING


async def test_the_flow_run_of_a_lost_worker_fails_like_its_run(service: RunningRunService) -> None:
    run, flow_run_id = await _dispatched(service)
    await service.start(run.run_id, flow_run_id)
    await service.leases.step()
    await service.pass_time(31)
    await service.ender.step()
    assert service.orchestrator.flow_runs[flow_run_id] is FlowRunState.FAILED


async def test_an_end_that_the_previous_release_left_undelivered_uses_the_status_of_the_run(
    service: RunningRunService,
) -> None:
    """The previous release cancelled the flow run, whatever the status of the run was."""
    run, flow_run_id = await _dispatched(service)
    started = await service.start(run.run_id, flow_run_id)
    await service.fail(run.run_id, started.fencing_token)
    async with service.app.deps.database.infra() as connection:
        await connection.execute(sa.text("delete from endings"))
        await connection.execute(
            sa.text("""
                insert into dispatches (tenant_id, run_id, action, instance_id, flow_kind, name, orchestrator_run_id,
                    submit_time, due_time)
                values ('default', :run_id, 'cancel', :instance_id, 'refresh', 'x', :flow_run_id, now(), '2024-01-01')
            """),
            {"run_id": run.run_id, "instance_id": run.instance_id, "flow_run_id": flow_run_id},
        )
    await service.dispatcher.step()
    await service.ender.step()
    assert service.orchestrator.flow_runs[flow_run_id] is FlowRunState.FAILED


async def test_runs_go_through_the_loops_by_themselves(live_service: RunningRunService) -> None:
    service = live_service
    assert isinstance(service.orchestrator, FakeOrchestrator)
    run = await service.submit(service.instances.add())
    watch = service.runs.WatchRun(_watch(run.run_id))
    seen = []
    async for state in watch:
        seen.append(state.status)
        if state.orchestrator_run_id and state.status == run_pb2.RUN_STATUS_PENDING:
            started = await service.start(run.run_id, state.orchestrator_run_id)
            await service.complete(run.run_id, started.fencing_token)
    assert seen[-1] == run_pb2.RUN_STATUS_COMPLETED
    assert str(uuid.UUID(run.run_id)) == run.run_id


def _watch(run_id: str) -> object:
    from optaic.run.v1 import run_service_pb2  # noqa: PLC0415 - used here only

    return run_service_pb2.WatchRunRequest(run_id=run_id)


async def _claimed_twice(service: RunningRunService, run: run_pb2.Run) -> None:
    """Another replica makes the flow run, since the claim of the first ran out; a worker claims it and dies."""
    service.clock.advance(61)
    await Dispatcher(service.app.deps, service.orchestrator).step()
    (first,) = service.orchestrator.flow_runs
    assert (await service.get(run.run_id)).orchestrator_run_id == first
    service.orchestrator.flow_runs[first] = FlowRunState.CRASHED
    while (await service.get(run.run_id)).orchestrator_run_id:
        service.clock.advance(5)
        await service.observer.step()


async def test_a_late_answer_does_not_pair_a_run_with_its_former_flow_run(
    service: RunningRunService,
) -> None:
    run = await service.submit(service.instances.add())

    async def be_slow(_: str) -> None:
        service.orchestrator.before_answer = None
        await _claimed_twice(service, run)

    service.orchestrator.before_answer = be_slow
    await service.dispatcher.step()
    (first,) = service.orchestrator.flow_runs
    assert (await service.get(run.run_id)).orchestrator_run_id == ""
    service.clock.advance(1)
    while await service.dispatcher.step():
        pass
    again = (await service.get(run.run_id)).orchestrator_run_id
    assert again not in {"", first}
    service.clock.advance(1)
    await service.ender.step()
    assert service.orchestrator.flow_runs[first] is FlowRunState.CANCELLED, (
        "whoever is late does not start it"
    )
    for _ in range(8):
        service.clock.advance(5)
        await service.observer.step()
    assert (await service.get(run.run_id)).status == run_pb2.RUN_STATUS_PENDING
    started = await service.start(run.run_id, again)
    assert started.run.status == run_pb2.RUN_STATUS_RUNNING


async def test_a_late_answer_does_not_change_the_claim_of_another_replica(service: RunningRunService) -> None:
    await service.submit(service.instances.add())
    twin = Dispatcher(service.app.deps, service.orchestrator)

    async def refuse(_: str) -> None:
        raise OrchestratorRefusedError("busy")

    async def be_slow(_: str) -> None:
        # While the first waits for its answer, the second claims, and postpones what failed.
        service.clock.advance(61)
        service.orchestrator.before_answer = refuse
        await twin.step()
        service.orchestrator.before_answer = None
        raise OrchestratorRefusedError("no")

    service.orchestrator.before_answer = be_slow
    await service.dispatcher.step()
    async with service.app.deps.database.infra() as connection:
        row = (await connection.execute(sa.text("select attempts, last_error from dispatches"))).one()
    assert row.attempts == 1
    assert "busy" in row.last_error, "what the second found out is kept"


@pytest.mark.parametrize("state", [FlowRunState.CANCELLED, FlowRunState.CRASHED, None])
async def test_the_state_of_an_old_flow_run_does_not_change_its_run(
    service: RunningRunService, state: FlowRunState | None
) -> None:
    """An observer reads the state of a flow run, and acts on it after the run was paired with its next flow run."""
    run, first = await _dispatched(service)
    twin = Observer(service.app.deps, service.orchestrator)
    service.clock.advance(6)
    await twin.step()  # an observer waits at its first step
    service.orchestrator.flow_runs[first] = FlowRunState.CLAIMED
    real = service.orchestrator.get_states

    async def be_slow(flow_run_ids: Collection[str]) -> dict[str, FlowRunState]:
        service.orchestrator.get_states = real  # type: ignore[method-assign] # once
        service.orchestrator.flow_runs[first] = FlowRunState.CRASHED
        service.clock.advance(61)
        await twin.step()
        service.clock.advance(1)
        await service.dispatcher.step()
        assert (await service.get(run.run_id)).orchestrator_run_id not in {"", first}
        return {} if state is None else dict.fromkeys(flow_run_ids, state)

    service.orchestrator.get_states = be_slow  # type: ignore[method-assign] # a slow one
    service.clock.advance(20)
    await service.observer.step()
    going_on = await service.get(run.run_id)
    assert going_on.status == run_pb2.RUN_STATUS_PENDING
    assert going_on.orchestrator_run_id not in {"", first}
    assert len(service.orchestrator.flow_runs) == 2
