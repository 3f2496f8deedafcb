"""FlowStatusesChanged: chunks that are small enough, and in the right order."""

from __future__ import annotations

from lineage_service import events
from lineage_service.domain.causes import Cause, CauseKind, Causes
from lineage_service.domain.flows import Change, Flow
from servicekit.ids import new_id

ORIGIN = Flow(
    flow_id=1, instance_id=new_id(), flow_kind="refresh", instance_name="prices", instance_kind=1,
    instance_revision=1, is_deleted=False, is_defined=True, fingerprint="", fingerprint_change="",
    computed_fingerprint="", verified_run_number=0, verified_fingerprint="", version=2, version_id=new_id(), uri="", physical_version="", digest="", last_data_date="", run_number=2, last_run_id="",
    last_run_time=None, ended_run_number=2, outcome_run_number=2, outcome="succeeded", completed_run_number=2,
    rows_processed=0, invalidated_run_number=-1, invalidated_reason="", is_fresh=True, revision=7,
    computed_revision=1, readers_hash="", full_run_number=2, partial_run_number=0,
    stale_revision=0, expected_data_date="", late_since_time=None, blocks_readers=False, version_run_number=2,
)  # fmt: skip
CONTRACT_BYTES = 256_000


def _changes(count: int) -> list[Change]:
    return [
        Change(
            flow_id=number,
            instance_id=new_id(),
            flow_kind="refresh",
            is_defined=True,
            run_number=3,
            ended_run_number=3,
            outcome="succeeded",
            is_fresh=False,
            last_run_id=new_id(),
            last_run_time=1_700_000_000_123_456,
            version=4,
            last_data_date="2024-01-02",
            rows_processed=10,
            expected_data_date="",
            late_since_time=None,
            brought_nothing=False,
        )
        for number in range(count)
    ]


def test_ten_thousand_changes_go_out_in_chunks_with_shared_causes() -> None:
    cause = Cause(CauseKind.UPSTREAM_MOVED, ORIGIN, "prices moved from version 1 to version 2", 1, 2)
    changes = _changes(10_000)
    group = events.ChangeGroup("run", changes, 9_999)
    shared = [cause]
    causes = Causes({change.flow_id: shared for change in changes})
    messages = list(events.change_messages(7, [group], causes, ["event"]))
    assert len(messages) > 2
    assert all(message.ByteSize() <= CONTRACT_BYTES for message in messages)
    assert [change.flow.instance_id for message in messages for change in message.changes] == [
        change.instance_id for change in changes
    ]
    assert {
        (message.revision, message.affected_downstream, message.caused_by_run_id) for message in messages
    } == {(7, 9_999, "run")}
    assert all(len(message.causes) == 1 and message.causes[0].origin_name == "prices" for message in messages)
    assert [list(message.caused_by_event_ids) for message in messages[:-1]] == [[]] * (len(messages) - 1)
    assert list(messages[-1].caused_by_event_ids) == ["event"]
    assert messages[0].changes[0].last_run_time.ToMicroseconds() == 1_700_000_000_123_456


def test_a_change_of_nothing_still_names_its_events() -> None:
    (message,) = events.change_messages(3, [events.ChangeGroup()], Causes(), ["one", "two"])
    assert list(message.caused_by_event_ids) == ["one", "two"]
    assert not message.changes


def test_a_chain_of_stale_flows_names_the_upstream_of_each() -> None:
    changes = _changes(5_000)
    # Each has the one before as its upstream; the first has a list of its own.
    moved = [Cause(CauseKind.UPSTREAM_MOVED, ORIGIN, "prices moved from version 1 to version 2", 1, 2)]
    states = {change.flow_id: change for change in changes}
    upstream_ids = {change.flow_id: change.flow_id - 1 for change in changes[1:]}
    names = {change.flow_id: f"signal-{change.flow_id}" for change in changes}
    causes = Causes({0: moved}, upstream_ids, states, names)
    messages = list(events.change_messages(7, [events.ChangeGroup("run", changes)], causes, []))
    assert len(messages) > 2
    assert all(message.ByteSize() <= CONTRACT_BYTES for message in messages)
    told = [
        [message.causes[index].message for index in change.cause_indexes]
        for message in messages
        for change in message.changes
    ]
    assert told == [
        ["prices moved from version 1 to version 2"],
        *([f"signal-{number} is not fresh"] for number in range(4_999)),
    ]
    origins = {cause.origin.instance_id for message in messages for cause in message.causes}
    assert origins == {ORIGIN.instance_id, *(change.instance_id for change in changes[:-1])}
