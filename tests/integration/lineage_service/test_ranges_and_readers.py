"""Runs of a range of dates, and new versions of equal content that dependants read in another way."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import UTC, datetime
from typing import Any

import pytest
import sqlalchemy as sa

from lineage_service.domain.keys import FlowKey
from lineage_service.domain.runs import Phase, RunFact
from lineage_service.domain.snapshots import EdgeSpec, FlowSpec, Snapshot
from servicekit.ids import new_id
from support.lineage_service import Lineage, lineage_database, new_tenant, pins_of

PRICES, MOMENTUM, BACKTEST = (FlowKey(new_id(), "refresh") for _ in range(3))
READS = {PRICES: (), MOMENTUM: (PRICES,), BACKTEST: (MOMENTUM,)}
NAMES = {PRICES: "prices", MOMENTUM: "momentum", BACKTEST: "backtest"}


class Chain:
    """A dataset of prices, a signal computed from it, and a dependant of the signal."""

    def __init__(self, lineage: Lineage) -> None:
        self.lineage = lineage
        self.numbers = dict.fromkeys(READS, 0)

    async def define(self, key: FlowKey, revision: int = 1, config: str = "a") -> None:
        """Publish a new revision of an instance."""
        edges = tuple(EdgeSpec(upstream, "input", 1) for upstream in READS[key])
        flow = FlowSpec(key.flow_kind, config, edges)
        snapshot = Snapshot(key.instance_id, revision, NAMES[key], 1, (flow,), event_id=new_id())
        await self.lineage.apply([snapshot])

    async def run(self, key: FlowKey, digest: str, config: str = "a", **fields: Any) -> RunFact:
        """Publish a completed run that read the admitted input versions."""
        answer = await self.lineage.check(key)
        self.numbers[key] += 1
        fact = RunFact(
            key,
            new_id(),
            self.numbers[key],
            Phase.COMPLETED,
            datetime(2024, 1, 2, tzinfo=UTC),
            fingerprint=config,
            inputs=tuple(pins_of(answer)),
            digest=digest,
            event_id=new_id(),
            **fields,
        )
        await self.lineage.apply([fact])
        return fact

    async def words(self) -> list[str]:
        """Return the status of each flow."""
        state = await self.lineage.state()
        return [state[key].word for key in READS]

    async def version(self, key: FlowKey) -> int:
        """Return the number of the newest version."""
        return (await self.lineage.state())[key].version

    async def causes(self, key: FlowKey) -> list[str]:
        """Return the causes why a flow is not fresh."""
        state = (await self.lineage.states())[key]
        return [f"{cause.kind.name} {cause.origin.instance_name}" for cause in state.causes]


@pytest.fixture
async def chain() -> AsyncIterator[Chain]:
    async with lineage_database() as database:
        chain = Chain(Lineage(database, new_tenant()))
        for key in READS:
            await chain.define(key)
        yield chain


@pytest.fixture(autouse=True)
def _postgres(postgres_server: object) -> None:
    del postgres_server


async def test_a_flow_stays_stale_after_a_range_run_until_a_run_of_all_dates(
    chain: Chain,
) -> None:
    for key in READS:
        await chain.run(key, "one")
    assert await chain.words() == ["ready", "ready", "ready"]
    # No upstream moved and no configuration changed, but the run did not read all dates.
    await chain.run(MOMENTUM, "one", is_partial_range=True)
    assert await chain.words() == ["ready", "stale", "stale"]
    assert await chain.causes(MOMENTUM) == ["PARTIAL_RANGE momentum"]
    _, found = await chain.lineage.explain(BACKTEST)
    roots = [(each.cause.kind.name, each.cause.origin.key) for each in found]
    assert ("PARTIAL_RANGE", MOMENTUM) in roots, "what is below names where it began"
    await chain.run(MOMENTUM, "one")
    assert await chain.words() == ["ready", "ready", "ready"]


async def test_a_range_run_does_not_count_as_having_read_all_dates(chain: Chain) -> None:
    for key in READS:
        await chain.run(key, "one")
    await chain.run(PRICES, "two")
    await chain.run(MOMENTUM, "two", is_partial_range=True)
    state = await chain.lineage.state()
    assert state[MOMENTUM].consumed == {(PRICES, "input"): 1}, "the rest is still computed from version 1"
    assert await chain.causes(MOMENTUM) == ["PARTIAL_RANGE momentum", "UPSTREAM_MOVED prices"]
    # A run of another range does not change this, nor does a run that fails or is cancelled.
    await chain.run(MOMENTUM, "three", is_partial_range=True)
    assert await chain.causes(MOMENTUM) == ["PARTIAL_RANGE momentum", "UPSTREAM_MOVED prices"]
    await chain.run(MOMENTUM, "four")
    assert await chain.causes(MOMENTUM) == []
    assert (await chain.lineage.state())[MOMENTUM].consumed == {(PRICES, "input"): 2}


async def test_a_first_run_of_a_range_is_partial_too(chain: Chain) -> None:
    await chain.run(PRICES, "one")
    await chain.run(MOMENTUM, "one", is_partial_range=True)
    assert await chain.words() == ["ready", "stale", "not_initialized"]
    assert await chain.causes(MOMENTUM) == ["PARTIAL_RANGE momentum"]


async def test_a_range_run_does_not_change_the_freshness_of_a_source(chain: Chain) -> None:
    await chain.run(PRICES, "one", is_partial_range=True)
    assert await chain.words() == ["ready", "not_initialized", "not_initialized"]
    await chain.lineage.invalidate(PRICES)
    await chain.run(PRICES, "two", is_partial_range=True)
    assert await chain.causes(PRICES) == ["INVALIDATED prices"], "a range heals no more than a range"
    await chain.run(PRICES, "three")
    assert await chain.words() == ["ready", "not_initialized", "not_initialized"]


async def test_another_accessor_makes_a_new_version_of_the_same_content(chain: Chain) -> None:
    for key in READS:
        await chain.run(key, "same", readers_hash="simple", instance_revision=1)
    before = (await chain.lineage.check(MOMENTUM)).admission.direct[0][0]
    assert (before.version, before.computed_revision, before.readers_hash) == (1, 1, "simple")
    await chain.define(PRICES, revision=2, config="b")
    assert await chain.words() == ["stale", "stale", "stale"]
    # Until the flow runs again, its output is read as before: the pin stays at the revision that computed it.
    unchanged = (await chain.lineage.check(MOMENTUM)).admission.direct[0][0]
    assert (unchanged.computed_revision, unchanged.instance_revision) == (1, 2)
    await chain.run(PRICES, "same", "b", readers_hash="field", instance_revision=2)
    assert await chain.words() == ["ready", "stale", "stale"]
    assert await chain.version(PRICES) == 2
    assert await chain.causes(MOMENTUM) == ["UPSTREAM_MOVED prices"]
    after = (await chain.lineage.check(MOMENTUM)).admission.direct[0][0]
    assert (after.version, after.computed_revision, after.readers_hash) == (2, 2, "field")


async def test_a_configuration_read_in_the_same_way_makes_no_new_version_of_the_same_content(
    chain: Chain,
) -> None:
    for key in READS:
        await chain.run(key, "same", readers_hash="simple")
    await chain.define(PRICES, revision=2, config="b")
    await chain.run(PRICES, "same", "b", readers_hash="simple")
    assert await chain.words() == ["ready", "ready", "ready"]
    assert await chain.version(PRICES) == 1


@pytest.mark.parametrize(
    ("base_hash", "version"),
    [("", 1), ("simple", 1), ("field", 2)],
    ids=["nobody knows", "read alike", "swapped meanwhile"],
)
async def test_after_an_upgrade_the_first_refresh_moves_only_with_a_reason(
    chain: Chain, base_hash: str, version: int
) -> None:
    """The old version has no recorded hash; the new run reports it if it can."""
    for key in READS:
        await chain.run(key, "same")
    await _forget_what_is_new(chain)
    assert await chain.words() == ["ready", "ready", "ready"]
    await chain.run(PRICES, "same", readers_hash="simple", base_readers_hash=base_hash)
    assert await chain.version(PRICES) == version
    assert await chain.words() == ["ready", *(["ready"] * 2 if version == 1 else ["stale"] * 2)]
    # From now on the hash is recorded: only a run with another accessor makes a new version.
    await chain.run(PRICES, "same", readers_hash="simple")
    assert await chain.version(PRICES) == version
    await chain.run(PRICES, "same", readers_hash="other")
    assert await chain.version(PRICES) == version + 1


async def test_the_first_digest_of_a_later_release_moves_no_version_of_equal_content(chain: Chain) -> None:
    for key in READS:
        await chain.run(key, "one")
    await chain.run(PRICES, "d2:one", former_digest="one")
    await chain.run(PRICES, "d2:one")
    assert (await chain.version(PRICES), await chain.words()) == (1, ["ready", "ready", "ready"])
    await chain.run(MOMENTUM, "d2:two", former_digest="two")
    assert await chain.version(MOMENTUM) == 2


async def test_runs_from_before_an_upgrade_count_as_runs_of_all_dates(chain: Chain) -> None:
    for key in READS:
        await chain.run(key, "one")
    await _forget_what_is_new(chain)
    await chain.run(MOMENTUM, "two", is_partial_range=True)
    assert await chain.causes(MOMENTUM) == ["PARTIAL_RANGE momentum"]
    await chain.run(MOMENTUM, "three")
    assert await chain.words() == ["ready", "ready", "stale"]


async def test_hashes_are_compared_in_the_order_of_runs_regardless_of_the_order_of_events(
    chain: Chain,
) -> None:
    facts = [
        RunFact(
            PRICES, new_id(), number, Phase.COMPLETED, None, fingerprint="a", digest="same", event_id=new_id(),
            readers_hash=readers,
        )
        for number, readers in enumerate(["x", "y", "y", "x"], start=1)
    ]  # fmt: skip
    for fact in (facts[3], facts[0], facts[2], facts[1]):
        await chain.lineage.apply([fact])
    assert await chain.version(PRICES) == 3


async def _forget_what_is_new(chain: Chain) -> None:
    """Change the rows to what an earlier release wrote."""
    async with chain.lineage.database.transaction(chain.lineage.tenant_id) as connection:
        for statement in (
            "update flows set full_run_number = null, computed_revision = 0, readers_hash = ''",
            "update versions set readers_hash = '', base_readers_hash = ''",
        ):
            await connection.execute(sa.text(statement))
