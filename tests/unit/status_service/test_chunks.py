"""Large changes go out in chunks."""

from optaic.status.v1 import status_events_pb2, status_pb2
from servicekit.ids import new_id
from status_service import events
from support.clock import FakeClock


def test_chunks_stay_within_the_size_and_lose_nothing() -> None:
    statuses = [status_pb2.InstanceStatus(instance_id=new_id(), instance_name="x" * 300) for _ in range(2000)]
    deleted = [new_id() for _ in range(5000)]
    chunks = events.chunk("default", 7, statuses, deleted, [new_id()], FakeClock(), new_id)
    messages = [status_events_pb2.InstanceStatusesChanged.FromString(each.payload) for each in chunks]
    assert len(messages) > 2
    assert all(len(each.payload) <= 256_000 for each in chunks)
    assert {message.revision for message in messages} == {7}
    assert [each.instance_id for message in messages for each in message.instance_statuses] == [
        each.instance_id for each in statuses
    ]
    assert [each for message in messages for each in message.deleted_instance_ids] == deleted
    assert {each.subject for each in chunks} == {"optaic.default.status.v1.instance_statuses_changed.batch"}
