"""An end of a run, or a change of a flow, wakes a loop only if there is something for it to do now."""

from collections import Counter

from optaic.common.v1 import flow_pb2
from optaic.lineage.v1 import lineage_events_pb2
from support.polling import eventually
from support.run_service import RunningRunService

_LOOPS = ("dispatcher", "ender", "ticker", "refresher", "follower")


def _count_wakes(service: RunningRunService) -> Counter[str]:
    """Count from now on how often each loop is woken."""
    wakes: Counter[str] = Counter()
    for name in _LOOPS:
        setattr(service.app.deps, f"wake_{name}", lambda name=name: wakes.update([name]))
    return wakes


async def test_a_run_that_its_executor_ends_wakes_no_loop(service: RunningRunService) -> None:
    completed, failed = [await service.submit(service.instances.add()) for _ in range(2)]
    tokens = [(await service.start(run.run_id)).fencing_token for run in (completed, failed)]
    wakes = _count_wakes(service)
    await service.complete(completed.run_id, tokens[0])
    await service.fail(failed.run_id, tokens[1])
    assert not wakes


async def test_a_cancelled_run_wakes_the_loop_that_ends_or_finds_its_flow_run(
    service: RunningRunService,
) -> None:
    paired = await service.submit(service.instances.add())
    await service.start(paired.run_id)
    unpaired = await service.submit(service.instances.add())
    wakes = _count_wakes(service)
    await service.cancel(paired.run_id)
    assert wakes == {"ender": 1}
    await service.cancel(unpaired.run_id)
    assert wakes == {"ender": 1, "dispatcher": 1}


async def test_a_changed_flow_that_nothing_waits_for_wakes_no_loop(live_service: RunningRunService) -> None:
    service = live_service
    instance = service.instances.add()
    run = await service.submit(instance)
    wakes = _count_wakes(service)
    message = lineage_events_pb2.FlowStatusesChanged(
        revision=9, caused_by_run_id=run.run_id, affected_downstream=1
    )
    message.changes.add().flow.CopyFrom(
        flow_pb2.FlowRef(instance_id=instance.instance_id, flow_kind=flow_pb2.FLOW_KIND_REFRESH)
    )
    await service.publish("lineage", message, "flow_statuses_changed")

    async def is_applied() -> bool:
        return len(await service.activity_types(run.run_id)) > 1

    await eventually(is_applied)
    assert not wakes
