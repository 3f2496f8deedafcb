"""A backtest with an optimizer: the edge to it, the fingerprint, and how the backtest follows its changes."""

from __future__ import annotations

from typing import Any, NamedTuple

import pytest
import sqlalchemy as sa

from instance_service.events import SELF
from optaic.instance.v1.instance_pb2 import EDGE_KIND_DATA, EDGE_KIND_SCHEMA, FlowEdge, Instance
from optaic.instance.v1.instance_service_pb2 import GetInstanceRequest, ListInstanceRevisionsRequest
from support.definitions import MANIFESTS, optimizer, publish
from support.instance_service import TENANT, RunningInstanceService, refusal


class World(NamedTuple):
    """A project with prices, a signal, and an optimizer of it."""

    service: RunningInstanceService
    project_id: str
    prices: str
    signal: str
    optimizer: str

    def given(self, name: str = "b", **fields: Any) -> dict[str, Any]:
        """Return a backtest with the optimizer, as JSON."""
        return {
            "projectId": self.project_id,
            "name": name,
            "backtest": {"signals": {"primary": self.signal}, **fields},
            "upstreamRefs": [
                {"resourceId": self.prices, "role": "prices"},
                {"resourceId": self.optimizer, "role": "optimizer"},
            ],
        }

    async def get(self, instance_id: str) -> Instance:
        found: Instance = await self.service.instances.GetInstance(
            GetInstanceRequest(instance_id=instance_id)
        )
        return found


@pytest.fixture
async def world(service: RunningInstanceService) -> World:
    await publish(service, "halves")
    project = await service.project()
    prices = await service.prices(project.project_id)
    signal = await service.signal(project.project_id, "signal", prices.instance_id)
    made = await service.create(
        optimizer(project.project_id, "mvo", signal.instance_id, config={"risk_aversion": 1})
    )
    return World(service, project.project_id, prices.instance_id, signal.instance_id, made.instance_id)


def edge_of(instance: Instance) -> FlowEdge:
    (found,) = [edge for edge in instance.flows[0].upstreams if edge.role == "optimizer"]
    return found


def fingerprint(instance: Instance) -> str:
    (flow,) = instance.flows
    return str(flow.compute_fingerprint)


async def test_the_edge_names_the_revision_and_carries_no_version(world: World) -> None:
    created = await world.service.create(world.given())
    edge = edge_of(created)
    assert (edge.kind, edge.upstream_revision) == (EDGE_KIND_SCHEMA, 1)
    assert {each.upstream_revision for each in created.flows[0].upstreams if each.role != "optimizer"} == {0}
    said = await world.service.create(world.given("said", config={"weighting": "optimizer"}))
    assert fingerprint(said) == fingerprint(created)
    few = await world.service.create(world.given("few", config={"topN": 5}))
    assert fingerprint(few) != fingerprint(created)


@pytest.mark.parametrize(
    ("change", "path"),
    [
        ({"config": {"risk_aversion": 2}}, "config"),
        ({"portfolioOptimizer": {"constraints": {"max_weight": 0.5}}}, "portfolio_optimizer.constraints"),
    ],
)
async def test_a_change_of_what_counts_gives_the_backtest_a_revision_at_once(
    world: World, change: dict[str, Any], path: str
) -> None:
    created = await world.service.create(world.given())
    other = await world.service.create({**world.given("other"), "upstreamRefs": []})
    await world.service.update(world.optimizer, change, path)
    moved = await world.get(created.instance_id)
    assert moved.revision == 2
    assert fingerprint(moved) != fingerprint(created)
    assert moved.flows[0].fingerprint_change.startswith("its optimizer changed: its ")
    assert edge_of(moved).upstream_revision == 2
    assert (await world.get(other.instance_id)).revision == 1
    revisions = await world.service.instances.ListInstanceRevisions(
        ListInstanceRevisionsRequest(instance_id=created.instance_id)
    )
    assert revisions.revisions[0].author == SELF
    back = {"config": {"risk_aversion": 1}, "portfolioOptimizer": {}}
    await world.service.update(world.optimizer, back, path)
    assert fingerprint(await world.get(created.instance_id)) == fingerprint(created)


@pytest.mark.parametrize(
    ("change", "path"),
    [
        ({"name": "renamed"}, "name"),
        ({"description": "new"}, "description"),
        ({"portfolioOptimizer": {"primaryWeight": 0.5}}, "portfolio_optimizer.primary_weight"),
    ],
)
async def test_other_changes_of_the_optimizer_concern_no_backtest(
    world: World, change: dict[str, Any], path: str
) -> None:
    created = await world.service.create(world.given())
    await world.service.update(world.optimizer, change, path)
    assert (await world.get(created.instance_id)).revision == 1
    # Nor does the next change of the backtest itself name another revision, as the fingerprint stays.
    described = await world.service.update(created.instance_id, {"description": "mine"}, "description")
    assert fingerprint(described) == fingerprint(created)
    assert edge_of(described).upstream_revision == 1


async def test_other_upstreams_of_the_optimizer_concern_no_backtest(world: World) -> None:
    created = await world.service.create(world.given())
    given = optimizer(world.project_id, "mvo", world.signal, world.prices)
    changed = await world.service.update(world.optimizer, given, "upstream_refs")
    assert changed.revision == 2
    assert (await world.get(created.instance_id)).revision == 1


async def test_a_backtest_follows_an_optimizer_that_tracks_the_newest_version(world: World) -> None:
    tracking = optimizer(world.project_id, "tracking", world.signal, trackNewest=True)
    made = await world.service.create(tracking)
    given = world.given()
    given["upstreamRefs"][1]["resourceId"] = made.instance_id
    created = await world.service.create(given)
    await publish(world.service, "halves", "1.1.0", description="better")
    schema = MANIFESTS["halves"]["parametersSchema"]
    await publish(world.service, "halves", "1.2.0", parametersSchema={**schema, "title": "Halves"})
    moved = await world.service.until(created.instance_id, lambda found: found.revision > 1)
    assert "its optimizer changed: definition halves moved from version 1.0.0 to" in (
        moved.flows[0].fingerprint_change
    )
    assert fingerprint(moved) != fingerprint(created)


@pytest.mark.parametrize(
    ("config", "refs", "field"),
    [
        ({"procedure": 1}, ["prices", "optimizer"], "instance.backtest.config.procedure"),
        ({"weighting": "signal"}, ["prices", "optimizer"], "instance.backtest.config.weighting"),
        ({"weighting": "optimizer"}, ["prices"], "instance.backtest.config.weighting"),
        ({"longShort": True}, ["prices", "optimizer"], "instance.backtest.config.long_short"),
    ],
)
async def test_settings_that_do_not_fit_an_optimizer_are_refused(
    world: World, config: dict[str, Any], refs: list[str], field: str
) -> None:
    given = world.given(config=config)
    given["upstreamRefs"] = [ref for ref in given["upstreamRefs"] if ref["role"] in refs]
    refused = await refusal(world.service.create(given))
    assert (refused.reason, field in refused.fields) == ("INVALID_SPEC", True)
    plain = await world.service.create({**given, "backtest": {"signals": {"primary": world.signal}}})
    update = {"backtest": {"config": config}}
    refused = await refusal(world.service.update(plain.instance_id, update, "backtest.config"))
    assert (refused.reason, field in refused.fields) == ("INVALID_SPEC", True)


async def test_the_weight_of_the_first_signal_counts_for_the_optimizer_itself(world: World) -> None:
    two = optimizer(world.project_id, "two", world.signal)
    second = await world.service.signal(world.project_id, "second", world.prices)
    two["upstreamRefs"].append({"resourceId": second.instance_id, "role": "signal"})
    created = await world.service.create(two)
    turned = {"upstreamRefs": two["upstreamRefs"][::-1]}
    assert fingerprint(
        await world.service.update(created.instance_id, turned, "upstream_refs")
    ) == fingerprint(created)
    weight = {"portfolioOptimizer": {"primaryWeight": 0.7}}
    weighted = await world.service.update(created.instance_id, weight, "portfolio_optimizer")
    assert fingerprint(weighted) != fingerprint(created)
    turned = {"upstreamRefs": two["upstreamRefs"]}
    assert fingerprint(
        await world.service.update(created.instance_id, turned, "upstream_refs")
    ) != fingerprint(weighted)


async def test_a_backtest_of_an_earlier_release_follows_too(world: World) -> None:
    """Its edge is of kind DATA and names no revision; its fingerprint has nothing of the optimizer, until that changes."""
    created = await world.service.create(world.given())
    earlier = Instance()
    earlier.CopyFrom(created)
    edge = edge_of(earlier)
    edge.kind, edge.upstream_revision = EDGE_KIND_DATA, 0
    earlier.flows[0].compute_fingerprint = "earlier"
    await _store(world, earlier)
    assert fingerprint(await world.get(created.instance_id)) == "earlier"
    await world.service.update(world.optimizer, {"description": "nothing that counts"}, "description")
    assert fingerprint(await world.get(created.instance_id)) == "earlier"
    await world.service.update(world.optimizer, {"config": {"risk_aversion": 3}}, "config")
    moved = await world.get(created.instance_id)
    assert (edge_of(moved).kind, edge_of(moved).upstream_revision) == (EDGE_KIND_SCHEMA, 3)


async def test_a_backtest_that_no_longer_fits_says_so_in_a_condition_until_it_is_updated(
    world: World,
) -> None:
    created = await world.service.create(world.given())
    earlier = Instance()
    earlier.CopyFrom(created)
    earlier.backtest.config.procedure = (
        1  # which knows no optimizer; an earlier release stored such backtests
    )
    earlier.backtest.config.weighting = ""
    await _store(world, earlier)
    await world.service.update(world.optimizer, {"config": {"risk_aversion": 3}}, "config")
    blocked = await world.get(created.instance_id)
    (condition,) = [each for each in blocked.conditions if each.type == "FollowsOptimizer"]
    assert condition.reason == "BacktestDoesNotFit"
    assert "backtest.config" in condition.message
    assert (blocked.revision, fingerprint(blocked)) == (created.revision, fingerprint(created))
    mended = await world.service.update(
        created.instance_id, {"backtest": {"config": {"procedure": 2}}}, "backtest.config.procedure"
    )
    assert not [each for each in mended.conditions if each.type == "FollowsOptimizer"]
    assert fingerprint(mended) != fingerprint(created)


async def _store(world: World, instance: Instance) -> None:
    async with world.service.app.deps.database.transaction(TENANT) as connection:
        await connection.execute(
            sa.text("update instances set snapshot = :snapshot where instance_id = cast(:id as uuid)"),
            {"snapshot": instance.SerializeToString(), "id": instance.instance_id},
        )
