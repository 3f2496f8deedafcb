"""Services, worker, client and pages agree on kinds of instances and on their flows."""

import re

import pytest

from instance_service.domain.flows import flow_kinds
from optaic.common.v1.flow_pb2 import FlowKind
from optaic.definition.v1.definition_pb2 import DefinitionKind, DefinitionVersion
from optaic.instance.v1.instance_pb2 import Instance, InstanceKind
from optaic.instance.v1.spec_pb2 import DatasetSpec
from optaic.plugins import PluginError
from optaic.rules import kinds
from optaic.run.v1.run_pb2 import Run, RunKind
from run_service.domain.kinds import RUN_KINDS, run_kind
from servicekit.enums import enum_number, enum_word
from servicekit.errors import NotFoundError
from status_service.domain.statuses import has_status, is_aggregated
from support.contract import ROOT, comments, numbers_in, words_in
from worker.recipe_reading import make_recipe

EVERY_KIND = tuple(enum_word(InstanceKind, number) for number in InstanceKind.values() if number)
EVERY_FLOW = tuple(enum_word(FlowKind, number) for number in FlowKind.values() if number)
DATASET = "optaic.instance.v1.DatasetSpec"


def test_kinds_and_flows_are_those_of_the_contracts() -> None:
    assert {*kinds.OWN_KINDS, *kinds.COMPONENT_KINDS} == set(EVERY_KIND)
    specs = {field.name for field in Instance.DESCRIPTOR.oneofs_by_name["spec"].fields}
    assert specs == set(EVERY_KIND)
    assert {flow for flows in kinds.FLOWS.values() for flow in flows} == set(EVERY_FLOW)
    assert tuple(kinds.FLOWS) == kinds.OWN_KINDS
    named = {name for names in kinds.DEFINITION_KINDS.values() for name in names}
    assert named == {enum_word(DefinitionKind, number) for number in DefinitionKind.values() if number}
    assert tuple(kinds.DEFINITION_KINDS) == (*kinds.COMPONENT_KINDS, *kinds.DEFINED_KINDS)
    assert set(RUN_KINDS) == {enum_word(RunKind, number) for number in RunKind.values() if number}


def test_components_are_the_parts_of_a_dataset() -> None:
    message = DatasetSpec.DESCRIPTOR
    parts = [
        field.name
        for field in message.fields
        if field.message_type and field.message_type.name == "ComponentSpec"
    ]
    assert tuple(parts) == kinds.COMPONENT_KINDS


@pytest.mark.parametrize("kind", EVERY_KIND)
def test_services_agree_on_the_flows_of_a_kind(kind: str) -> None:
    assert set(flow_kinds(kind, has_monitoring=True)) == set(kinds.FLOWS.get(kind, ()))
    for flow in EVERY_FLOW:
        if flow in kinds.FLOWS.get(kind, ()):
            assert run_kind("i", kind, flow) in RUN_KINDS
        else:
            with pytest.raises(NotFoundError):
                run_kind("i", kind, flow)
    assert has_status(kind) is (kind in kinds.OWN_KINDS)


@pytest.mark.parametrize("kind", kinds.OWN_KINDS)
@pytest.mark.parametrize("flow", EVERY_FLOW)
def test_a_flow_that_an_instance_asks_for_counts_for_nothing_else(kind: str, flow: str) -> None:
    is_own = flow in flow_kinds(kind)
    assert is_aggregated(kind, flow) is (is_own or flow not in kinds.FLOWS[kind])


@pytest.mark.parametrize("kind", EVERY_KIND)
@pytest.mark.parametrize("flow", EVERY_FLOW)
def test_the_worker_executes_every_flow_that_an_instance_has(kind: str, flow: str) -> None:
    instance = Instance(name="x")
    getattr(instance, kind).SetInParent()
    try:
        make_recipe(Run(flow_kind=enum_number(FlowKind, flow)), instance, [], {"": DefinitionVersion()})
        is_executed = True
    except PluginError as error:  # a backtest without signals is refused for that reason
        is_executed = error.type != "UnsupportedFlow"
    assert is_executed is (flow in kinds.FLOWS.get(kind, ()))


def test_the_contract_states_the_defaults_of_a_dataset() -> None:
    for slot, name in kinds.DEFAULT_COMPONENTS.items():
        assert words_in(comments()[f"{DATASET}.{slot}"]) == [name]
    share = comments()[f"{DATASET}.max_deleted_share"]
    assert kinds.MAX_DELETED_SHARE in numbers_in(share)


def test_the_page_lists_the_flows_of_each_kind() -> None:
    rows = [
        line.split("|")[1:-1]
        for line in (ROOT / "docs/instances.md").read_text().splitlines()
        if line.startswith("| ")
    ]
    listed = {
        name.strip().replace(" ", "_"): set(re.findall(r"`(\w+)`", flows)) & set(EVERY_FLOW)
        for names, _, _, flows in (row for row in rows if len(row) == 4)
        for name in names.split(",")
    }
    assert {kind: listed[kind] for kind in kinds.OWN_KINDS} == {
        kind: set(flows) for kind, flows in kinds.FLOWS.items()
    }
