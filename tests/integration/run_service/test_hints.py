"""Hints for workers: that a flow run was made."""

import asyncio
from contextlib import aclosing

from optaic.run.v1 import run_report_service_pb2
from support.run_service import RunningRunService


async def test_workers_hear_of_each_flow_run_of_their_tenant(service: RunningRunService) -> None:
    hints = service.app.deps.hints
    async with aclosing(hints.listen("default")) as ours, aclosing(hints.listen("rival")) as others:
        await anext(ours)  # at once: flow runs may have been made before
        await anext(others)
        waiting = asyncio.ensure_future(anext(ours))
        unasked = asyncio.ensure_future(anext(others))
        await service.submit(service.instances.add())
        assert not waiting.done()
        await service.dispatcher.step()
        await asyncio.wait_for(waiting, 10)
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
