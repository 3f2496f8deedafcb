"""Facts in any order, any number of times, give the same board."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest
from google.protobuf.message import Message
from hypothesis import given
from hypothesis import strategies as st

from optaic.instance.v1 import instance_events_pb2, instance_pb2
from servicekit.consumer import Received
from status_service import consumers, conversion
from status_service.domain.board import Board, Fact
from support.status_service import event, flow_change, flow_statuses, flow_wait_changed, instance

_IDS = [f"01900000-0000-7000-8000-00000000000{number}" for number in range(3)]
_KINDS = ("TRAINING", "INFERENCE")


def _instance_fact(message: Message) -> Fact:
    return consumers.instance_fact(Received(event(message), message))


def _lineage_fact(message: Message) -> Fact:
    return consumers.lineage_fact(Received(event(message), message))


def _created(instance_id: str, revision: int = 1, **fields: Any) -> Fact:
    shown = instance(instance_id, revision=revision, kind="MODEL", flow_kinds=_KINDS, **fields)
    return _instance_fact(instance_events_pb2.InstanceCreated(instance=shown))


def _updated(instance_id: str, revision: int, **fields: Any) -> Fact:
    shown = instance(instance_id, revision=revision, kind="MODEL", flow_kinds=_KINDS, **fields)
    return _instance_fact(instance_events_pb2.InstanceUpdated(instance=shown))


def _activated(instance_id: str, revision: int) -> Fact:
    shown = instance(instance_id, revision=revision, kind="MODEL", flow_kinds=_KINDS, state="ACTIVE")
    return _instance_fact(instance_events_pb2.InstanceActivated(instance=shown))


def _wait_fact(instance_id: str, number: int, *, waits: bool) -> Fact:
    changed = flow_wait_changed(instance_id, number, ["prices"] if waits else [], flow_kind="INFERENCE")
    return consumers.run_fact(Received(event(changed), changed))


def _deleted(instance_id: str, revision: int) -> Fact:
    shown = instance(instance_id, revision=revision, kind="MODEL", flow_kinds=_KINDS, state="DELETING")
    return _instance_fact(instance_events_pb2.InstanceDeleted(instance=shown))


def _gone(instance_id: str) -> Fact:
    """The deletion that an owner publishes when it no longer knows the instance."""
    shown = instance_pb2.Instance(instance_id=instance_id)
    return _instance_fact(instance_events_pb2.InstanceDeleted(instance=shown))


@st.composite
def _facts(draw: st.DrawFn) -> list[Fact]:
    facts = []
    for instance_id in _IDS:
        facts.append(_created(instance_id))
        for revision in range(2, draw(st.integers(2, 5))):
            facts.append(_updated(instance_id, revision, name=f"name_{revision}"))
            if draw(st.booleans()):
                facts.append(_activated(instance_id, revision))
        if draw(st.booleans()):
            facts.append(_deleted(instance_id, 9))
        if draw(st.booleans()):
            facts.append(_gone(instance_id))
    words = st.sampled_from(["ERROR", "STALE", "RUNNING", "NOT_INITIALIZED", "READY"])
    for revision in range(1, draw(st.integers(1, 9))):
        changes = [
            flow_change(instance_id, draw(words), flow_kind=kind, run_number=revision)
            for instance_id in _IDS
            for kind in _KINDS
            if draw(st.booleans())
        ]
        # Two chunks of one change: the same revision, other flows.
        facts.append(_lineage_fact(flow_statuses(revision, *changes[::2])))
        facts.append(_lineage_fact(flow_statuses(revision, *changes[1::2])))
    for number in range(1, draw(st.integers(1, 5))):
        facts += [_wait_fact(each, number, waits=draw(st.booleans())) for each in _IDS]
    return facts


def _result(facts: Sequence[Fact]) -> tuple[dict[str, bytes], dict[str, tuple[Any, ...]], set[str]]:
    board = Board()
    for fact in facts:
        board.put(fact)
    live = [each for each, known in board.instances.items() if not known.is_deleted]
    shown = {
        each: conversion.instance_status_of(board, each).SerializeToString(deterministic=True)
        for each in live
    }
    deleted = {
        each: (known.name, known.project_id, known.kind, known.flow_kinds, known.owner)
        for each, known in board.instances.items()
        if known.is_deleted
    }
    return shown, deleted, {each for each, flows in board.flows.items() if flows}


@given(st.data())
def test_duplicates_and_any_order_give_the_same_state(data: st.DataObject) -> None:
    facts = data.draw(_facts())
    shuffled = data.draw(st.permutations(facts))
    repeated = data.draw(st.lists(st.sampled_from(facts), max_size=10))
    assert _result([*shuffled, *repeated]) == _result(facts)


def test_chunks_of_one_revision_are_all_taken() -> None:
    board = Board()
    board.put(_created(_IDS[0]))
    board.put(_lineage_fact(flow_statuses(7, flow_change(_IDS[0], "READY", flow_kind="TRAINING"))))
    board.put(_lineage_fact(flow_statuses(7, flow_change(_IDS[0], "READY", flow_kind="INFERENCE"))))
    assert board.status(_IDS[0]) == "READY"


def test_without_the_comparison_an_old_event_overrules_a_newer_one(monkeypatch: pytest.MonkeyPatch) -> None:
    """The mitigation off: the anomaly that it prevents shows."""
    new = _lineage_fact(flow_statuses(2, flow_change(_IDS[0], "READY", flow_kind="TRAINING")))
    old = _lineage_fact(flow_statuses(1, flow_change(_IDS[0], "ERROR", flow_kind="TRAINING")))
    facts = [_created(_IDS[0]), new, old]
    guarded = Board()
    for fact in facts:
        guarded.put(fact)
    assert guarded.flows[_IDS[0]]["training"].status == "READY"
    monkeypatch.setattr("status_service.domain.board.Flow.supersedes", lambda *_: True)
    unguarded = Board()
    for fact in facts:
        unguarded.put(fact)
    assert unguarded.flows[_IDS[0]]["training"].status == "ERROR"


def test_an_older_wait_overrules_no_newer_one() -> None:
    board = Board()
    for fact in (_created(_IDS[0]), _wait_fact(_IDS[0], 2, waits=False), _wait_fact(_IDS[0], 1, waits=True)):
        board.put(fact)
    shown = conversion.instance_status_of(board, _IDS[0])
    assert not any(flow.HasField("waiting_for") for flow in shown.flows)


def test_flows_that_arrive_before_their_instance_are_kept() -> None:
    board = Board()
    board.put(_lineage_fact(flow_statuses(1, flow_change(_IDS[0], "ERROR", flow_kind="TRAINING"))))
    board.put(_created(_IDS[0]))
    assert board.status(_IDS[0]) == "ERROR"


def test_an_instance_without_known_flows_is_not_initialized() -> None:
    board = Board()
    board.put(_created(_IDS[0]))
    status = conversion.instance_status_of(board, _IDS[0])
    assert board.status(_IDS[0]) == "NOT_INITIALIZED"
    assert [flow.flow_kind for flow in status.flows] == [3, 4]


def test_a_deletion_of_what_its_owner_no_longer_knows_empties_no_tombstone() -> None:
    created = _created(_IDS[0], name="momentum")
    for facts in (
        (created, _gone(_IDS[0])),
        (_gone(_IDS[0]), created),
        (created, _deleted(_IDS[0], 2), _gone(_IDS[0])),
    ):
        board = Board()
        for fact in facts:
            board.put(fact)
        known = board.instances[_IDS[0]]
        assert known.is_deleted
        assert (known.kind, bool(known.project_id)) == ("model", True)


def test_a_late_event_does_not_resurrect_a_deleted_instance() -> None:
    board = Board()
    board.put(_deleted(_IDS[0], 2))
    assert board.put(_updated(_IDS[0], 5)) == []
    assert (
        board.put(_lineage_fact(flow_statuses(9, flow_change(_IDS[0], "READY", flow_kind="TRAINING")))) == []
    )
    assert board.instances[_IDS[0]].is_deleted


def test_the_news_that_an_instance_is_gone_forgets_nothing_of_it() -> None:
    board = Board()
    board.put(_created(_IDS[0], 3, name="momentum"))
    known = board.instances[_IDS[0]]
    bare = instance_pb2.Instance(instance_id=_IDS[0])
    board.put(_instance_fact(instance_events_pb2.InstanceDeleted(instance=bare)))
    assert board.instances[_IDS[0]] == replace(known, is_deleted=True)


def test_components_have_no_status() -> None:
    shown = instance(_IDS[0], kind="PIPELINE", flow_kinds=())
    assert not _instance_fact(instance_events_pb2.InstanceCreated(instance=shown)).instances


def test_the_monitoring_of_a_dataset_does_not_count() -> None:
    board = Board()
    shown = instance(_IDS[0], flow_kinds=("REFRESH", "MONITORING"))
    board.put(_instance_fact(instance_events_pb2.InstanceCreated(instance=shown)))
    changes = flow_change(_IDS[0], "READY"), flow_change(_IDS[0], "ERROR", flow_kind="MONITORING")
    board.put(_lineage_fact(flow_statuses(1, *changes)))
    status = conversion.instance_status_of(board, _IDS[0])
    assert board.status(_IDS[0]) == "READY"
    assert [flow.is_aggregated for flow in status.flows] == [True, False]
