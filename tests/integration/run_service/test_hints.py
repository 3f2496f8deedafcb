"""Hints for workers: that a flow run was made."""

import asyncio
from contextlib import aclosing

from optaic.run.v1 import run_report_service_pb2
from run_service.domain.pairing import FlowRunState
from support.orchestrator_runs import QUEUE_ID
from support.run_service import RunningRunService


async def test_workers_hear_of_each_flow_run_of_their_tenant(service: RunningRunService) -> None:
    hints = service.app.deps.hints
    async with aclosing(hints.listen("default")) as ours, aclosing(hints.listen("rival")) as others:
        await anext(ours)  # at once: flow runs may have been made before
        await anext(others)
        waiting = asyncio.ensure_future(anext(ours))
        unasked = asyncio.ensure_future(anext(others))
        run = await service.submit(service.instances.add())
        assert not waiting.done()
        await service.dispatcher.step()
        named = await asyncio.wait_for(waiting, 10)
        assert named is not None
        assert (named.run_id, named.flow.instance_id) == (run.run_id, run.instance_id)
        assert named.flow.flow_kind == run.flow_kind
        assert named.work_queue_id == QUEUE_ID
        stored = await service.get(run.run_id)
        assert named.orchestrator_run_id == stored.orchestrator_run_id
        assert not unasked.done()
        unasked.cancel()
        await asyncio.wait({unasked})


async def test_the_stream_of_hints_begins_with_one(service: RunningRunService) -> None:
    request = run_report_service_pb2.WatchDispatchesRequest()
    stream = service.reports.WatchDispatches(request)
    assert (
        await asyncio.wait_for(anext(aiter(stream)), 10) == run_report_service_pb2.WatchDispatchesResponse()
    )
    stream.cancel()


async def test_a_flow_run_that_does_not_wait_is_not_named(service: RunningRunService) -> None:
    async def cancel(flow_run_id: str) -> None:
        service.orchestrator.flow_runs[flow_run_id] = FlowRunState.CANCELLED

    service.orchestrator.before_answer = cancel
    async with aclosing(service.app.deps.hints.listen("default")) as hints:
        await anext(hints)
        await service.submit(service.instances.add())
        await service.dispatcher.step()
        assert await asyncio.wait_for(anext(hints), 10) is None


async def test_the_stream_names_a_flow_run(service: RunningRunService) -> None:
    stream = service.reports.WatchDispatches(run_report_service_pb2.WatchDispatchesRequest())
    messages = aiter(stream)
    await asyncio.wait_for(anext(messages), 10)
    run = await service.submit(service.instances.add())
    await service.dispatcher.step()
    message = await asyncio.wait_for(anext(messages), 10)
    assert message.dispatched_run.run_id == run.run_id
    stream.cancel()
