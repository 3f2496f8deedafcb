"""Experiments: what a preview reads, what it is compared with, and what its fingerprint covers."""

from typing import Any, NamedTuple

import pytest

from optaic.common.v1.flow_pb2 import FlowKind
from optaic.definition.v1.definition_pb2 import DEFINITION_KIND_OP_MACRO, DefinitionVersion, OpMacro
from optaic.definition.v1.definition_service_pb2 import PublishDefinitionRequest
from optaic.instance.v1.instance_pb2 import Instance
from servicekit.enums import enum_word
from support.definitions import experiment, publish
from support.instance_service import RunningInstanceService, refusal


class World(NamedTuple):
    """A project with a dataset and a signal."""

    project_id: str
    prices: str
    signal: str


@pytest.fixture
async def world(service: RunningInstanceService) -> World:
    """An operator whose definition knows the role `input` only, and something to read."""
    await publish(service, "BLEND")
    project = await service.project()
    prices = await service.prices(project.project_id)
    signal = await service.signal(project.project_id, "signal", prices.instance_id)
    return World(project.project_id, prices.instance_id, signal.instance_id)


def refs(*given: tuple[str, str]) -> list[dict[str, str]]:
    return [{"resourceId": upstream, "role": role} for upstream, role in given]


def reads(instance: Instance) -> set[tuple[str, str, str]]:
    (flow,) = instance.flows
    return {
        (edge.upstream.instance_id, enum_word(FlowKind, edge.upstream.flow_kind), edge.role)
        for edge in flow.upstreams
    }


def fingerprint(instance: Instance) -> str:
    (flow,) = instance.flows
    found: str = flow.compute_fingerprint
    return found


async def test_prices_may_be_an_input_or_stand_beside_it(
    service: RunningInstanceService, world: World
) -> None:
    beside = refs((world.signal, "input"), (world.prices, "prices"))
    created = await service.create(experiment(world.project_id, "beside", upstreamRefs=beside))
    assert reads(created) == {(world.signal, "refresh", "input"), (world.prices, "refresh", "prices")}
    both = refs((world.prices, "input"), (world.prices, "prices"))
    created = await service.create(experiment(world.project_id, "both", upstreamRefs=both))
    assert reads(created) == {(world.prices, "refresh", "input"), (world.prices, "refresh", "prices")}


@pytest.mark.parametrize(
    ("kinds", "field"),
    [
        (["signal"], "instance.upstream_refs[1]"),
        (["prices", "other"], "instance.upstream_refs"),
    ],
)
async def test_prices_are_one_dataset(
    service: RunningInstanceService, world: World, kinds: list[str], field: str
) -> None:
    other = await service.derived(world.project_id, "other", world.prices)
    known = {**world._asdict(), "other": other.instance_id}
    given = refs((world.signal, "input"), *((known[kind], "prices") for kind in kinds))
    refused = await refusal(service.create(experiment(world.project_id, "e", upstreamRefs=given)))
    assert set(refused.fields) == {field}


async def test_prices_alone_are_no_input(service: RunningInstanceService, world: World) -> None:
    given = experiment(world.project_id, "e", upstreamRefs=refs((world.prices, "prices")))
    refused = await refusal(service.create(given))
    assert "role 'input' takes at least 1" in refused.fields["instance.upstream_refs"]


async def test_the_fingerprint_covers_all_that_a_preview_depends_on(
    service: RunningInstanceService, world: World
) -> None:
    given = experiment(world.project_id, "plain", world.signal)
    shown: dict[str, Any] = {
        "universe": ["A", "B"],
        "dateRange": {"start": "2020-01-02", "end": "2021-12-31"},
    }
    changes: dict[str, dict[str, Any]] = {
        "plain": {},
        "universe": {"experiment": {**shown, "universe": ["A"]}},
        "start": {"experiment": {**shown, "dateRange": {"start": "2020-01-03", "end": "2021-12-31"}}},
        "end": {"experiment": {**shown, "dateRange": {"start": "2020-01-02"}}},
        "number": {"config": {"x": "close", "n": 6}},
        "expression": {"config": {"x": "value", "n": 5}},
        "macro": {"config": {"x": "MOMENTUM(close, 252, 21)", "n": 5}},
        "prices": {"upstreamRefs": refs((world.signal, "input"), (world.prices, "prices"))},
        "inputs": {"upstreamRefs": refs((world.signal, "input"), (world.prices, "input"))},
    }
    found = {
        name: fingerprint(await service.create({**given, "experiment": shown, "name": name, **change}))
        for name, change in changes.items()
    }
    assert len(set(found.values())) == len(changes)
    await publish(service, "BLEND", "1.1.0", codeRef="elsewhere:Blend")
    newer = await service.create({**given, "experiment": shown, "name": "newer"})
    assert fingerprint(newer) not in found.values()
    same = {**shown, "universe": ["B", "A", "B"]}  # neither order nor repetition changes the result
    pinned = {**given, "definitionVersion": "1.0.0"}
    assert fingerprint(await service.create({**pinned, "experiment": same, "name": "same"})) == found["plain"]


async def test_the_fingerprint_covers_the_version_of_a_macro_that_an_argument_calls(
    service: RunningInstanceService, world: World
) -> None:
    found = []
    for version, expression in (("1.0.0", "x / 2"), ("1.1.0", "x / 3")):
        macro = OpMacro(parameters=["x"], expression=expression)
        request = PublishDefinitionRequest(
            name="HALF",
            kind=DEFINITION_KIND_OP_MACRO,
            definition_version=DefinitionVersion(version=version, op_macro=macro),
        )
        await service.definitions.PublishDefinition(request)
        config = {"x": "HALF(close)", "n": 5}
        given = experiment(world.project_id, f"e{version}", world.signal, config=config)
        created = await service.create(given)
        assert list(created.macro_version_ids) == ["HALF"]
        found.append(fingerprint(created))
    assert found[0] != found[1]
