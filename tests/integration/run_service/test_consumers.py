"""Consumers of other services' events: deletions, and the flows that a run made stale."""

from optaic.instance.v1 import instance_events_pb2, instance_pb2
from optaic.lineage.v1 import lineage_events_pb2
from optaic.run.v1 import run_pb2
from support.polling import eventually
from support.run_service import RunningRunService, refused


async def _delete(service: RunningRunService, instance: instance_pb2.Instance) -> None:
    message = instance_events_pb2.InstanceDeletionRequested(instance=instance)
    await service.publish("instance", message, "deletion_requested", instance.instance_id)


async def test_deleting_an_instance_cancels_its_runs(live_service: RunningRunService) -> None:
    service = live_service
    instance, other = service.instances.add(), service.instances.add()
    run, kept = await service.submit(instance), await service.submit(other)
    await _delete(service, instance)

    async def is_cancelled() -> bool:
        return (await service.get(run.run_id)).status == run_pb2.RUN_STATUS_CANCELLED

    await eventually(is_cancelled)
    assert (await service.get(run.run_id)).error.type == "INSTANCE_DELETING"
    assert (await service.get(kept.run_id)).status == run_pb2.RUN_STATUS_PENDING
    async with refused("INSTANCE_DELETING"):
        await service.submit(instance)  # the peer's answer is still the old one


async def test_consequences_are_added_to_the_timeline_once(live_service: RunningRunService) -> None:
    service = live_service
    run = await service.submit(service.instances.add())
    message = lineage_events_pb2.FlowStatusesChanged(
        revision=9, caused_by_run_id=run.run_id, affected_downstream=12
    )
    for _ in range(3):  # three chunks of one change
        await service.publish("lineage", message, "flow_statuses_changed")
    message.revision = 10
    message.affected_downstream = 0
    await service.publish("lineage", message, "flow_statuses_changed")
    message.revision = 11
    message.affected_downstream = 1
    await service.publish("lineage", message, "flow_statuses_changed")

    async def types() -> list[str]:
        return await service.activity_types(run.run_id)

    await eventually(lambda: _has(types, 3))
    assert await types() == ["pipeline_run.submitted", *["pipeline_run.affected_downstream"] * 2]


async def _has(types: object, count: int) -> bool:
    assert callable(types)
    return len(await types()) >= count


async def test_events_reach_the_stream(live_service: RunningRunService) -> None:
    service = live_service
    instance = service.instances.add()
    run = await service.submit(instance)
    await service.cancel(run.run_id)

    async def count() -> int:
        info = await service.nats.jetstream().stream_info("RUN_EVENTS")
        return int(info.state.messages)

    await eventually(lambda: _reaches(count, 2))
    subject = f"optaic.default.run.v1.submitted.{instance.instance_id}"
    message = await service.nats.jetstream().get_last_msg("RUN_EVENTS", subject)
    from optaic.run.v1 import run_events_pb2  # noqa: PLC0415 - used here only

    assert run_events_pb2.RunSubmitted.FromString(message.data or b"").run == run


async def _reaches(count: object, wanted: int) -> bool:
    assert callable(count)
    return int(await count()) >= wanted
