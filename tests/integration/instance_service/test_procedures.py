"""The procedure of a backtest: a new one gets the newest, an existing one keeps its own; what needs which."""

from __future__ import annotations

from typing import Any

import pytest

from instance_service.domain.fingerprints import backtest_settings, compute_fingerprint
from instance_service.domain.flows import Edge
from optaic.instance.v1.instance_pb2 import Instance
from support.instance_service import RunningInstanceService, refusal

Settings = dict[str, Any]


@pytest.fixture
async def sources(service: RunningInstanceService) -> tuple[str, str, str]:
    """A project with prices and a signal: their ids."""
    project_id = (await service.project()).project_id
    prices = await service.prices(project_id, "p")
    signal = await service.signal(project_id, "s", prices.instance_id)
    return project_id, prices.instance_id, signal.instance_id


def backtest(sources: tuple[str, str, str], name: str = "b", **spec: Any) -> Settings:
    return {
        "projectId": sources[0],
        "name": name,
        "backtest": {"signals": {"primary": sources[2]}, **spec},
    }


def fingerprint(instance: Instance) -> str:
    (flow,) = instance.flows
    return flow.compute_fingerprint


async def test_a_creation_fills_in_the_newest_procedure(
    service: RunningInstanceService, sources: tuple[str, str, str]
) -> None:
    bare = await service.create(backtest(sources))
    said = await service.create(backtest(sources, "said", config={"procedure": 2, "delistingAfter": 21}))
    first = await service.create(backtest(sources, "first", config={"procedure": 1}))
    assert [one.backtest.config.procedure for one in (bare, said, first)] == [2, 2, 1]
    assert fingerprint(bare) == fingerprint(said) != fingerprint(first)
    # As it was before there was a choice.
    edges = [
        Edge("backtest", sources[2], "refresh", "signal", "signal"),
        Edge("backtest", sources[1], "refresh", "prices", "data"),
    ]
    assert fingerprint(first) == compute_fingerprint("backtest", {"backtest": backtest_settings({})}, edges)


@pytest.mark.parametrize("procedure", [1, 2])
@pytest.mark.parametrize("path", ["*", "backtest", "backtest.config", "backtest.config.procedure"])
async def test_an_update_that_leaves_it_out_keeps_the_procedure(
    service: RunningInstanceService, sources: tuple[str, str, str], procedure: int, path: str
) -> None:
    created = await service.create(backtest(sources, config={"procedure": procedure, "topN": 3}))
    given = backtest(sources, "b2" if path == "*" else "b", config={"topN": 3})
    changed = await service.update(created.instance_id, given, path)
    assert changed.backtest.config.procedure == procedure
    assert changed.backtest.config.top_n == 3
    assert fingerprint(changed) == fingerprint(created)


async def test_an_update_can_move_a_backtest_to_another_procedure(
    service: RunningInstanceService, sources: tuple[str, str, str]
) -> None:
    created = await service.create(backtest(sources, config={"procedure": 1}))
    moved = await service.update(
        created.instance_id, {"backtest": {"config": {"procedure": 2}}}, "backtest.config.procedure"
    )
    assert moved.backtest.config.procedure == 2
    assert moved.flows[0].fingerprint_change == "its procedure moved from 1 to 2"
    assert fingerprint(moved) != fingerprint(created)


@pytest.mark.parametrize(
    ("config", "field"),
    [
        ({"missingPrices": "carry"}, "missing_prices"),
        ({"minSessionCoverage": 0.5}, "min_session_coverage"),
        ({"delistingAfter": 0}, "delisting_after"),
        ({"delistingReturn": 0.0}, "delisting_return"),
        ({"weighting": "equal"}, "weighting"),
        ({"longShort": False}, "long_short"),
        ({"slippageModel": "volume"}, "slippage_model"),
    ],
)
async def test_the_first_procedure_refuses_the_settings_that_it_does_not_have(
    service: RunningInstanceService, sources: tuple[str, str, str], config: Settings, field: str
) -> None:
    refused = await refusal(service.create(backtest(sources, config={"procedure": 1, **config})))
    assert (refused.reason, list(refused.fields)) == ("INVALID_SPEC", [f"instance.backtest.config.{field}"])
    assert await service.create(backtest(sources, config=config))


@pytest.mark.parametrize(
    "config",
    [
        {"procedure": 0}, {"procedure": 3}, {"missingPrices": "drop"}, {"minSessionCoverage": 1.01},
        {"minSessionCoverage": -0.1}, {"delistingAfter": -1}, {"delistingReturn": -1.01}, {"weighting": "optimal"},
    ],
)  # fmt: skip
async def test_a_wrong_setting_is_refused(
    service: RunningInstanceService, sources: tuple[str, str, str], config: Settings
) -> None:
    before = await service.row_counts()
    refused = await refusal(service.create(backtest(sources, config=config)))
    (field,) = refused.fields
    assert field.startswith("instance.backtest.config.")
    assert await service.row_counts() == before


async def test_a_membership_is_an_edge_that_the_spec_implies(
    service: RunningInstanceService, sources: tuple[str, str, str]
) -> None:
    members = (await service.prices(sources[0], "members")).instance_id
    given = backtest(sources, assets={"membershipId": members.upper()})
    created = await service.create(given)
    assert created.backtest.assets.membership_id == members
    assert {(edge.role, edge.upstream.instance_id) for edge in created.flows[0].upstreams} == {
        ("signal", sources[2]),
        ("prices", sources[1]),
        ("membership", members),
    }
    twice = {**given, "name": "twice", "upstreamRefs": [{"resourceId": members, "role": "membership"}]}
    assert fingerprint(await service.create(twice)) == fingerprint(created)
    assert fingerprint(await service.create(backtest(sources, "bare"))) != fingerprint(created)


async def test_a_membership_that_cannot_be_is_refused(
    service: RunningInstanceService, sources: tuple[str, str, str]
) -> None:
    path = "instance.backtest.assets.membership_id"
    both = backtest(sources, assets={"membershipId": sources[1], "universe": ["AAPL"]})
    refused = await refusal(service.create(both))
    assert (refused.reason, list(refused.fields)) == ("INVALID_SPEC", [path])
    named = backtest(sources, assets={"universe": ["AAPL"]})
    named["upstreamRefs"] = [{"resourceId": sources[1], "role": "membership"}]
    assert list((await refusal(service.create(named))).fields) == [path]
    of_signal = backtest(sources, assets={"membershipId": sources[2]})
    assert (await refusal(service.create(of_signal))).reason == "WRONG_UPSTREAM_KIND"
    unknown = backtest(sources, assets={"membershipId": "00000000-0000-7000-8000-000000000000"})
    assert (await refusal(service.create(unknown))).reason == "UPSTREAM_NOT_FOUND"
    older = backtest(sources, assets={"membershipId": sources[1]}, config={"procedure": 1})
    assert list((await refusal(service.create(older))).fields) == [path]
