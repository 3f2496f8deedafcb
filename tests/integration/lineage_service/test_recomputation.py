"""Recomputation: a wrong row, planted behind the service's back, is found, repaired and published; without it, it stays."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import NamedTuple

import pytest
import sqlalchemy as sa

from lineage_service import conversion
from lineage_service.domain.keys import FlowKey
from lineage_service.domain.runs import Input, Phase, RunFact
from lineage_service.domain.snapshots import EdgeSpec, FlowSpec, Snapshot
from lineage_service.reconcile.recomputing import Recomputer
from lineage_service.use_cases import recomputation
from optaic.lineage.v1.lineage_service_pb2 import RecomputeFreshnessRequest, RecomputeFreshnessResponse
from servicekit.context import RequestContext
from servicekit.database import Database
from servicekit.errors import AlreadyExistsError, InvalidArgumentError
from servicekit.ids import new_id
from support.clock import FakeClock
from support.lineage_service import Lineage, lineage_database, new_tenant
from support.lineage_world import START

_HOUR = 3_600


@pytest.fixture
async def database(postgres_server: object) -> AsyncIterator[Database]:
    del postgres_server
    async with lineage_database() as opened:
        yield opened


class Chain(NamedTuple):
    """Three flows, each reading the one before; all have run once, and are fresh."""

    lineage: Lineage
    keys: list[FlowKey]

    async def plant(self, statement: str, key: FlowKey) -> None:
        """Change the row of a flow, or the edge into it, as no use case does."""
        text = sa.text(
            f"{statement} where tenant_id = :tenant_id and "  # noqa: S608 - constants of the tests
            f"{'downstream_id' if ' edges ' in statement else 'flow_id'} = (select flow_id from flows f "
            "where f.tenant_id = :tenant_id and f.instance_id = cast(:instance_id as uuid))"
        )
        parameters = {"tenant_id": self.lineage.tenant_id, "instance_id": key.instance_id}
        async with self.lineage.database.transaction(self.lineage.tenant_id) as connection:
            assert (await connection.execute(text, parameters)).rowcount == 1

    async def fresh(self) -> list[bool]:
        """Return which of the flows are stored as fresh."""
        state = await self.lineage.state()
        return [state[key].is_fresh for key in self.keys]

    async def told(self, after: int) -> dict[FlowKey, bool]:
        """Return what was published of the flows since a revision."""
        return {
            conversion.flow_key(change.flow): change.is_fresh
            for message in await self.lineage.messages(after)
            for change in message.changes
        }

    async def revision(self) -> int:
        """Return the newest published revision."""
        return max(message.revision for message in await self.lineage.messages())

    async def run(self, place: int, number: int, *inputs: Input, run_id: str) -> None:
        """Complete a run."""
        fact = RunFact(
            self.keys[place], run_id, number, Phase.COMPLETED, START,
            fingerprint="a", inputs=inputs, digest=run_id, event_id=new_id(),
        )  # fmt: skip
        await self.lineage.apply([fact])


@pytest.fixture
async def chain(database: Database) -> Chain:
    chain = Chain(
        Lineage(database, new_tenant(), FakeClock()), [FlowKey(new_id(), "refresh") for _ in range(3)]
    )
    inputs: list[Input] = []
    for place, key in enumerate(chain.keys):
        edges = tuple(EdgeSpec(item.upstream, item.role, 1) for item in inputs)
        flow = FlowSpec(key.flow_kind, "a", edges)
        await chain.lineage.apply(
            [Snapshot(key.instance_id, 1, f"flow_{place}", 1, (flow,), event_id=new_id())]
        )
        run_id = new_id()
        await chain.run(place, 1, *inputs, run_id=run_id)
        inputs = [Input(key, "input", run_id)]
    assert await chain.fresh() == [True, True, True]
    return chain


WRONG = {
    "a flow that was forgotten is stale": (0, "update flows set is_fresh = false", [True, True, True]),
    "a flow in the middle was forgotten": (1, "update flows set is_fresh = false", [True, True, True]),
    "an invalid flow seems fresh": (0, "update flows set invalidated_run_number = 1", [False, False, False]),
    "another configuration seems fresh": (
        1,
        "update flows set fingerprint = 'b'",
        [True, False, False],
    ),
    "a version that no run made": (0, "update flows set version = 7", [True, True, True]),
    "an input that no run read": (2, "update edges set consumed_version = 7", [True, True, True]),
    "an accepted version that is none": (
        1,
        "update edges set accepted_version = 7",
        [True, False, False],
    ),
}


@pytest.mark.parametrize("name", WRONG)
async def test_a_wrong_row_is_repaired_and_what_changes_by_that_is_published(chain: Chain, name: str) -> None:
    place, statement, expected = WRONG[name]
    await chain.plant(statement, chain.keys[place])
    before, revision = await chain.fresh(), await chain.revision()
    assert chain.keys[place] in await chain.lineage.recompute()
    assert await chain.fresh() == expected
    told = await chain.told(revision)
    changed = {key for key, was, now in zip(chain.keys, before, expected, strict=True) if was is not now}
    assert changed | {chain.keys[place]} <= told.keys()
    assert told == {key: fresh for key, fresh in zip(chain.keys, expected, strict=True) if key in told}
    assert await chain.lineage.recompute() == []
    assert await chain.revision() == revision + 1


async def test_the_readers_of_a_version_that_no_run_made_are_fresh_again(chain: Chain) -> None:
    await chain.plant("update flows set version = 7", chain.keys[0])
    for key in chain.keys[1:]:
        await chain.plant("update flows set is_fresh = false", key)
    assert await chain.lineage.recompute() == [chain.keys[0]]
    assert await chain.fresh() == [True, True, True]


async def test_what_is_wrong_above_is_repaired_with_a_flow_that_believes_it(chain: Chain) -> None:
    """The first is invalid and seems fresh; the last says that it is stale, which it is, though nothing shows why."""
    first, _, last = chain.keys
    await chain.plant("update flows set invalidated_run_number = 1", first)
    await chain.plant("update flows set is_fresh = false", last)
    revision = await chain.revision()
    assert await chain.lineage.recompute() == [first]
    assert await chain.fresh() == [False, False, False]
    assert not any((await chain.told(revision)).values())


async def test_without_the_recomputation_a_wrong_row_stays_whatever_happens_beside_it(chain: Chain) -> None:
    first, middle, _ = chain.keys
    await chain.plant("update flows set is_fresh = false", middle)
    await chain.run(0, 2, run_id=(await chain.lineage.state())[first].version_id)  # brings nothing new
    await chain.lineage.judge()
    assert await chain.fresh() == [True, False, True]
    assert await chain.lineage.recompute() == [middle]
    assert await chain.fresh() == [True, True, True]
    assert await chain.lineage.recompute() == []


async def test_a_comparison_of_what_is_right_writes_and_publishes_nothing(chain: Chain) -> None:
    revision = await chain.revision()
    assert await chain.lineage.recompute() == []
    assert await chain.told(revision) == {}


async def test_the_loop_compares_all_tenants_part_by_part_and_then_waits(
    chain: Chain, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(recomputation, "PART", 2)
    clock = chain.lineage.deps.clock
    assert isinstance(clock, FakeClock)
    other = Lineage(database, new_tenant(), clock)
    key = FlowKey(new_id(), "refresh")
    await other.apply(
        [Snapshot(key.instance_id, 1, "other", 1, (FlowSpec("refresh", "a", ()),), event_id=new_id())]
    )
    run_id = new_id()
    await other.apply(
        [RunFact(key, run_id, 1, Phase.COMPLETED, START, fingerprint="a", digest=run_id, event_id=new_id())]
    )
    await chain.plant("update flows set is_fresh = false", chain.keys[2])
    async with database.transaction(other.tenant_id) as connection:
        await connection.execute(sa.text("update flows set is_fresh = false"))
    recomputer = Recomputer(chain.lineage.deps, _HOUR)
    for _ in range(3):
        assert not await recomputer.step()
    assert await chain.fresh() == [True, True, True]
    assert (await other.state())[key].is_fresh
    await chain.plant("update flows set is_fresh = false", chain.keys[0])
    await recomputer.step()
    assert await chain.fresh() == [False, True, True]
    clock.advance(_HOUR)
    await recomputer.step()
    assert await chain.fresh() == [True, True, True]


async def ask(chain: Chain, **fields: object) -> RecomputeFreshnessResponse:
    context = RequestContext(chain.lineage.tenant_id, "ada", "1", "")
    request = RecomputeFreshnessRequest(**fields)  # type: ignore[arg-type]  # of the tests
    return await recomputation.recompute_freshness(chain.lineage.deps, context, request)


async def test_an_operator_who_follows_the_pages_compares_each_flow_once(chain: Chain) -> None:
    await chain.plant("update flows set is_fresh = false", chain.keys[2])
    counts, repaired, token = [], [], ""
    while True:
        answer = await ask(chain, page_size=2, page_token=token)
        counts.append(answer.compared_count)
        repaired += [conversion.flow_key(flow) for flow in answer.repaired_flows]
        token = answer.next_page_token
        if not token:
            break
    assert counts == [2, 1]
    assert repaired == [chain.keys[2]]
    with pytest.raises(InvalidArgumentError, match="page_token"):
        await ask(chain, page_token="forged")


async def test_a_repeated_request_gets_the_first_answer(chain: Chain) -> None:
    await chain.plant("update flows set is_fresh = false", chain.keys[1])
    request_id = new_id()
    first = await ask(chain, request_id=request_id)
    assert len(first.repaired_flows) == 1
    await chain.plant("update flows set is_fresh = false", chain.keys[1])
    assert await ask(chain, request_id=request_id) == first
    assert await chain.fresh() == [True, False, True]
    with pytest.raises(AlreadyExistsError):
        await ask(chain, request_id=request_id, page_size=1)
