"""Enums and their words, over every enum of the contracts that a database or a text has words for."""

from __future__ import annotations

from typing import Any

import pytest

from optaic.common.v1 import flow_pb2
from optaic.definition.v1 import definition_pb2
from optaic.instance.v1 import instance_pb2, spec_pb2
from optaic.lineage.v1 import lineage_pb2
from optaic.run.v1 import run_pb2
from servicekit.enums import enum_number, enum_word

ENUMS: tuple[Any, ...] = (
    flow_pb2.FlowKind,
    flow_pb2.Status,
    definition_pb2.DefinitionKind,
    definition_pb2.DefinitionState,
    instance_pb2.InstanceKind,
    instance_pb2.InstanceState,
    instance_pb2.EdgeKind,
    spec_pb2.SignalContract.NanPolicy,
    spec_pb2.SignalContract.BoundsPolicy,
    lineage_pb2.FlowActivity,
    lineage_pb2.FlowOutcome,
    run_pb2.RunKind,
    run_pb2.RunStatus,
)


@pytest.mark.parametrize("enum", ENUMS, ids=lambda enum: enum.DESCRIPTOR.full_name)
def test_every_number_has_a_word_of_its_own_that_leads_back(enum: Any) -> None:
    words = [enum_word(enum, number) for number in enum.values()]
    assert [enum_number(enum, word) for word in words] == enum.values()
    assert all(word == word.lower() for word in words)


def test_a_word_has_no_prefix() -> None:
    assert enum_word(flow_pb2.FlowKind, flow_pb2.FLOW_KIND_REFRESH) == "refresh"
    assert enum_word(flow_pb2.Status, flow_pb2.STATUS_NOT_INITIALIZED) == "not_initialized"
    assert enum_number(flow_pb2.FlowKind, "refresh") == flow_pb2.FLOW_KIND_REFRESH


def test_unspecified_has_a_word_and_is_the_empty_word_too() -> None:
    assert enum_word(flow_pb2.FlowKind, flow_pb2.FLOW_KIND_UNSPECIFIED) == "unspecified"
    assert enum_number(flow_pb2.FlowKind, "") == flow_pb2.FLOW_KIND_UNSPECIFIED


def test_an_unknown_number_is_refused() -> None:
    with pytest.raises(ValueError, match=r"optaic\.common\.v1\.FlowKind has no number 999"):
        enum_word(flow_pb2.FlowKind, 999)


def test_an_unknown_word_is_refused() -> None:
    with pytest.raises(ValueError, match=r"optaic\.common\.v1\.FlowKind has no word REFRESH"):
        enum_number(flow_pb2.FlowKind, "REFRESH")
