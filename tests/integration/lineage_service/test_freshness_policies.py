"""Freshness by time: policies are judged when they fall due, make flows stale and fresh again, and block no reader."""

from __future__ import annotations

import datetime as dt
from collections.abc import AsyncIterator
from dataclasses import replace

import pytest
import sqlalchemy as sa

from devstack.postgres import Postgres
from lineage_service.conversion import state_message
from lineage_service.domain.freshness import Frequency, Policy
from lineage_service.domain.keys import FlowKey
from lineage_service.domain.runs import Input, Phase, RunFact
from lineage_service.domain.snapshots import EdgeSpec, FlowSpec, Snapshot
from lineage_service.reconcile.sweeping import Sweeper
from optaic.lineage.v1 import lineage_pb2
from optaic.lineage.v1.lineage_events_pb2 import FlowStatusChange
from servicekit.database import Database
from servicekit.ids import new_id
from support.clock import FakeClock
from support.lineage_service import Lineage, lineage_database, new_tenant

DAILY = Policy(Frequency.DAILY)


@pytest.fixture
async def database(postgres_server: Postgres) -> AsyncIterator[Database]:
    del postgres_server
    async with lineage_database() as database:
        yield database


def moment(text: str) -> dt.datetime:
    return dt.datetime.fromisoformat(text).replace(tzinfo=dt.UTC)


class Chain:
    """Prices, which may have a policy, a signal that reads them, and a backtest that reads the signal."""

    def __init__(self, database: Database, now: str, policy: Policy | None = DAILY) -> None:
        self.clock = FakeClock(moment(now))
        self.lineage = Lineage(database, new_tenant(), self.clock)
        self.prices, self.signal, self.backtest = (FlowKey(new_id(), "refresh") for _ in range(3))
        self.policy = policy
        self.revision = 0
        self.numbers: dict[FlowKey, int] = {}
        self.runs: dict[FlowKey, str] = {}

    async def define(self, policy: Policy | None = None, **prices: str) -> None:
        """Create all three, or change the prices."""
        self.revision += 1
        spec = FlowSpec("refresh", prices.get("fingerprint", "f"), (), policy=policy)
        items = [Snapshot(self.prices.instance_id, self.revision, "prices", 1, (spec,))]
        if self.revision == 1:
            for key, name, upstream in (
                (self.signal, "signal", self.prices),
                (self.backtest, "backtest", self.signal),
            ):
                edge = EdgeSpec(upstream, "input", 1)
                items.append(Snapshot(key.instance_id, 1, name, 2, (FlowSpec("refresh", "f", (edge,)),)))
        await self.lineage.apply(items)
        await self.lineage.judge()

    async def run(
        self, key: FlowKey, last_data_date: str = "", digest: str = "", phase: Phase = Phase.COMPLETED
    ) -> None:
        """Run a flow; its output has a new digest unless one is given."""
        number = self.numbers[key] = self.numbers.get(key, 0) + 1
        upstream = {self.signal: self.prices, self.backtest: self.signal}.get(key)
        inputs = (Input(upstream, "input", self.runs[upstream]),) if upstream else ()
        run_id = new_id()
        fact = RunFact(
            key,
            run_id,
            number,
            phase,
            self.clock.now(),
            fingerprint="f",
            inputs=inputs,
            digest=digest or run_id,
            last_data_date=last_data_date,
            event_id=new_id(),
        )
        if phase is Phase.COMPLETED and not (digest and key in self.runs):
            self.runs[key] = run_id
        await self.lineage.apply([fact])
        await self.lineage.judge()

    async def begin(self, last_data_date: str) -> None:
        """Create all three and run them."""
        await self.define(self.policy)
        await self.run(self.prices, last_data_date, digest="d")
        await self.run(self.signal)
        await self.run(self.backtest)

    async def pass_to(self, now: str) -> None:
        """Let time pass, and the sweep look."""
        self.move_to(now)
        await self.lineage.judge()

    def move_to(self, now: str) -> None:
        """Let time pass unseen."""
        self.clock.advance((moment(now) - self.clock.now()).total_seconds())

    async def words(self) -> list[str]:
        """Return the statuses of the three."""
        state = await self.lineage.state()
        return [state[key].word for key in (self.prices, self.signal, self.backtest)]

    async def told(self, key: FlowKey) -> FlowStatusChange:
        """Return what was published last of a flow."""
        changes = [
            change
            for message in await self.lineage.messages()
            for change in message.changes
            if change.flow.instance_id == key.instance_id
        ]
        return changes[-1]


async def test_data_becomes_overdue_when_it_falls_due_and_fresh_again_with_a_newer_date(
    database: Database,
) -> None:
    chain = Chain(database, "2026-11-26 12:00")
    await chain.begin("2026-11-25")
    assert await chain.words() == ["ready"] * 3
    told = await chain.told(chain.prices)
    assert told.freshness_status == lineage_pb2.FRESHNESS_STATUS_FRESH
    assert told.expected_data_date == "2026-11-25"
    await chain.pass_to("2026-11-26 23:59:59")
    assert await chain.words() == ["ready"] * 3
    before = len(await chain.lineage.messages())
    await chain.pass_to("2026-11-27 00:00")
    assert await chain.words() == ["stale"] * 3
    state, explanations = await chain.lineage.explain(chain.backtest)
    assert [each.cause.message for each in explanations] == [
        "prices has data up to 2026-11-25, expected 2026-11-26"
    ]
    assert [cause.message for cause in state.causes] == ["signal is not fresh"]
    state, _ = await chain.lineage.explain(chain.prices)
    message = state_message(state.flow, state.causes)
    assert message.freshness_status == lineage_pb2.FRESHNESS_STATUS_OVERDUE
    assert message.expected_data_date == "2026-11-26"
    assert message.late_since_time.ToDatetime(dt.UTC) == moment("2026-11-27 00:00")
    assert message.causes[0].kind == lineage_pb2.CAUSE_KIND_OVERDUE
    assert message.causes[0].late_since_time == message.late_since_time
    told = await chain.told(chain.prices)
    assert told.late_since_time == message.late_since_time
    assert told.freshness_status == message.freshness_status
    assert len(await chain.lineage.messages()) == before + 1
    await chain.pass_to("2026-11-27 06:00")  # nothing falls due
    assert len(await chain.lineage.messages()) == before + 1

    await chain.run(chain.prices, "2026-11-26")
    assert await chain.words() == ["ready", "stale", "stale"]
    state, _ = await chain.lineage.explain(chain.prices)
    assert not state_message(state.flow, state.causes).HasField("late_since_time")
    await chain.run(chain.signal)
    await chain.run(chain.backtest)
    assert await chain.words() == ["ready"] * 3


async def test_a_source_is_delayed_when_the_last_refresh_succeeded_and_brought_nothing_new(
    database: Database,
) -> None:
    chain = Chain(database, "2026-11-26 12:00")
    await chain.begin("2026-11-25")
    await chain.pass_to("2026-11-27 07:00")
    await chain.run(chain.prices, "2026-11-25", digest="d")
    told = await chain.told(chain.prices)
    assert told.freshness_status == lineage_pb2.FRESHNESS_STATUS_SOURCE_DELAYED
    state, _ = await chain.lineage.explain(chain.prices)
    assert [cause.kind.name for cause in state.causes] == ["SOURCE_DELAYED"]
    assert await chain.words() == ["stale"] * 3
    # A failed refresh says nothing of the source.
    await chain.run(chain.prices, phase=Phase.FAILED)
    told = await chain.told(chain.prices)
    assert told.freshness_status == lineage_pb2.FRESHNESS_STATUS_OVERDUE
    # Other data with the same last date is something new.
    await chain.run(chain.prices, "2026-11-25")
    state, _ = await chain.lineage.explain(chain.prices)
    assert [cause.kind.name for cause in state.causes] == ["OVERDUE"]


async def test_newer_data_that_is_late_still_is_late_since_a_later_time(database: Database) -> None:
    chain = Chain(database, "2026-11-24 12:00")
    await chain.begin("2026-11-20")
    await chain.pass_to("2026-11-27 06:00")
    state, _ = await chain.lineage.explain(chain.prices)
    assert state.flow.late_since_time == moment("2026-11-24 00:00")
    await chain.run(chain.prices, "2026-11-24")
    state, _ = await chain.lineage.explain(chain.prices)
    assert state.flow.expected_data_date == "2026-11-26"
    assert state.flow.late_since_time == moment("2026-11-26 00:00")


async def test_late_data_keeps_no_reader_from_running(database: Database) -> None:
    chain = Chain(database, "2026-11-26 12:00")
    await chain.begin("2026-11-25")
    await chain.pass_to("2026-11-27 06:00")
    answer = await chain.lineage.check(chain.backtest)
    assert not answer.blocking
    assert [flow.key for flow in answer.late] == [chain.prices]
    await chain.run(chain.backtest)
    assert (await chain.words())[2] == "stale"
    # Another cause above blocks as ever, and so does a running upstream; the late flow is named besides.
    await chain.run(chain.prices, "2026-11-25")
    answer = await chain.lineage.check(chain.backtest)
    assert [each.flow.key for each in answer.blocking] == [chain.signal]
    assert [flow.key for flow in answer.late] == [chain.prices]
    await chain.run(chain.prices, phase=Phase.ACTIVE)
    answer = await chain.lineage.check(chain.signal)
    assert [each.flow.key for each in answer.blocking] == [chain.prices]
    assert answer.late == []


async def test_a_policy_may_say_that_late_data_blocks_readers(database: Database) -> None:
    chain = Chain(database, "2026-11-26 12:00", replace(DAILY, blocks_readers=True))
    await chain.begin("2026-11-25")
    await chain.pass_to("2026-11-27 06:00")
    answer = await chain.lineage.check(chain.backtest)
    assert {each.flow.key for each in answer.blocking} == {chain.prices, chain.signal}
    assert "expected 2026-11-26" in answer.blocking[0].reason
    await chain.define(DAILY)
    answer = await chain.lineage.check(chain.backtest)
    assert (answer.blocking, [flow.key for flow in answer.late]) == ([], [chain.prices])


async def test_the_cause_goes_with_the_policy_and_with_a_change_of_it(database: Database) -> None:
    chain = Chain(database, "2026-11-26 12:00")
    await chain.begin("2026-11-25")
    await chain.pass_to("2026-11-27 06:00")
    await chain.define(replace(DAILY, grace=dt.timedelta(hours=12)))
    assert await chain.words() == ["ready"] * 3
    await chain.pass_to("2026-11-27 12:00")
    assert await chain.words() == ["stale"] * 3
    await chain.define(None)
    assert await chain.words() == ["ready"] * 3
    state, _ = await chain.lineage.explain(chain.prices)
    assert (state.flow.expected_data_date, state.flow.late_since_time) == ("", None)
    # A new policy is judged at once, and what fell due before it counts.
    await chain.define(DAILY)
    assert await chain.words() == ["stale"] * 3


async def test_a_flow_that_never_succeeded_or_has_no_date_is_not_judged(database: Database) -> None:
    chain = Chain(database, "2026-11-27 12:00")
    await chain.define(DAILY)
    state, _ = await chain.lineage.explain(chain.prices)
    assert [cause.kind.name for cause in state.causes] == ["NEVER_SUCCEEDED"]
    await chain.run(chain.prices)
    assert (await chain.words())[0] == "ready"
    told = await chain.told(chain.prices)
    assert told.freshness_status == lineage_pb2.FRESHNESS_STATUS_UNSPECIFIED


async def test_two_sweepers_publish_each_answer_once(database: Database) -> None:
    chain = Chain(database, "2026-11-26 12:00")
    await chain.begin("2026-11-25")
    before = len(await chain.lineage.messages())
    chain.move_to("2026-11-27 06:00")
    sweepers = [Sweeper(chain.lineage.deps) for _ in range(2)]
    for sweeper in sweepers:
        assert await sweeper.step() is False
    assert len(await chain.lineage.messages()) == before + 1
    assert await chain.words() == ["stale"] * 3


async def test_a_policy_that_was_stored_before_the_upgrade_is_judged_from_its_next_due_moment(
    database: Database,
) -> None:
    chain = Chain(database, "2026-11-27 12:00", None)
    await chain.begin("2026-11-20")
    async with database.transaction(chain.lineage.tenant_id) as connection:
        await connection.execute(
            sa.text("update instances set policy_unknown_since = :now where tenant_id = :tenant_id"),
            {"now": chain.clock.now(), "tenant_id": chain.lineage.tenant_id},
        )
    # instance-service publishes the same revision again.
    chain.revision -= 1
    await chain.define(DAILY)
    assert await chain.words() == ["ready"] * 3
    # A later revision with the same policy changes nothing.
    await chain.define(DAILY)
    await chain.pass_to("2026-11-27 23:00")
    assert await chain.words() == ["ready"] * 3
    await chain.pass_to("2026-11-28 00:00")
    assert await chain.words() == ["stale"] * 3
    state, _ = await chain.lineage.explain(chain.prices)
    assert state.flow.expected_data_date == "2026-11-27"


async def test_a_deleted_instance_leaves_no_policy(database: Database) -> None:
    chain = Chain(database, "2026-11-26 12:00")
    await chain.begin("2026-11-25")
    await chain.lineage.apply([Snapshot(chain.prices.instance_id, 9, "prices", 1, (), is_deleted=True)])
    async with database.read(chain.lineage.tenant_id) as connection:
        count = await connection.execute(sa.text("select count(*) from freshness_policies"))
        assert count.scalar_one() == 0


async def test_the_sweep_reads_only_what_is_due_whatever_the_number_of_policies(database: Database) -> None:
    chain = Chain(database, "2026-11-26 12:00")
    await chain.begin("2026-11-25")
    async with database.transaction(chain.lineage.tenant_id) as connection:
        tenant = {"tenant_id": chain.lineage.tenant_id}
        await connection.execute(
            sa.text("""
                with made as (
                    insert into flows (tenant_id, instance_id, flow_kind, is_defined)
                    select :tenant_id, gen_random_uuid(), 'refresh', true from generate_series(1, 100000)
                    returning flow_id
                )
                insert into freshness_policies (tenant_id, flow_id, policy, next_due_time)
                select :tenant_id, flow_id, '{}', '2036-01-01' from made
            """),
            tenant,
        )
    chain.move_to("2026-11-27 06:00")
    async with database.infra() as connection:
        await connection.execute(sa.text("set local enable_seqscan = on"))
        plan = await connection.execute(
            sa.text("""
                explain (analyze, buffers, costs off, timing off, summary off)
                select tenant_id, flow_id from freshness_policies where next_due_time <= :now
                order by next_due_time limit 500
            """),
            {"now": chain.clock.now()},
        )
        lines = [row[0] for row in plan]
    assert "Index Scan using ix_freshness_policies_due" in "\n".join(lines)
    assert "rows=1" in lines[0]
    assert await Sweeper(chain.lineage.deps).step() is False
    assert await chain.words() == ["stale"] * 3
