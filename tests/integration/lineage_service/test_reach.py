"""The work of a change or a question does not grow with what is stale, or ready, already."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from dataclasses import replace
from datetime import UTC, datetime

import pytest

from lineage_service.domain.keys import FlowKey
from lineage_service.domain.runs import Phase, RunFact
from lineage_service.domain.snapshots import EdgeSpec, FlowSpec, Snapshot
from servicekit.ids import new_id
from support.lineage_service import Lineage, lineage_database, new_tenant, pins_of

_DEPTH = 6


class Chain:
    """Prices and rates; a chain of signals begins at both."""

    def __init__(self, lineage: Lineage) -> None:
        self.lineage = lineage
        self.prices, self.rates, *self.signals = (FlowKey(new_id(), "refresh") for _ in range(2 + _DEPTH))
        self.numbers: dict[FlowKey, int] = {}

    async def begin(self) -> None:
        """Define all flows, and run each once."""
        reads: dict[FlowKey, Sequence[FlowKey]] = {self.prices: (), self.rates: ()}
        above: Sequence[FlowKey] = (self.prices, self.rates)
        for signal in self.signals:
            reads[signal] = above
            above = (signal,)
        for number, (key, upstreams) in enumerate(reads.items()):
            edges = tuple(EdgeSpec(each, f"input_{place}", 1) for place, each in enumerate(upstreams))
            spec = FlowSpec("refresh", "f", edges)
            await self.lineage.apply([Snapshot(key.instance_id, 1, f"flow_{number}", 1, (spec,))])
        for key in reads:
            await self.complete(key)

    def fact(self, key: FlowKey, phase: Phase, run_id: str = "") -> RunFact:
        """Return an event of the flow's next run, or of its last one."""
        self.numbers[key] = self.numbers.get(key, 0) + (not run_id)
        return RunFact(
            key,
            run_id or new_id(),
            self.numbers[key],
            phase,
            datetime(2024, 1, 2, tzinfo=UTC),
            event_id=new_id(),
        )

    async def complete(self, key: FlowKey) -> None:
        """Complete a run with new content."""
        inputs = tuple(pins_of(await self.lineage.check(key)))
        fact = self.fact(key, Phase.COMPLETED)
        await self.lineage.apply([replace(fact, fingerprint="f", inputs=inputs, digest=new_id())])


@pytest.fixture
async def chain(postgres_server: object) -> AsyncIterator[Chain]:
    del postgres_server
    async with lineage_database() as database:
        chain = Chain(Lineage(database, new_tenant()))
        await chain.begin()
        yield chain


async def test_a_second_upstream_that_moves_reaches_its_direct_dependants_alone(chain: Chain) -> None:
    await chain.complete(chain.prices)
    stale = await chain.lineage.states()
    assert [stale[key].flow.is_fresh for key in chain.signals] == [False] * _DEPTH
    told = (await chain.lineage.messages())[-1].revision

    await chain.complete(chain.rates)

    states = await chain.lineage.states()
    written = {key for key, state in states.items() if state.flow.revision != stale[key].flow.revision}
    assert written == {chain.rates, chain.signals[0]}
    changes = [change for each in await chain.lineage.messages(told) for change in each.changes]
    assert {FlowKey(change.flow.instance_id, "refresh") for change in changes} == written
    assert [cause.message for cause in states[chain.signals[0]].causes] == [
        "flow_0 moved from version 1 to version 2",
        "flow_1 moved from version 1 to version 2",
    ]


async def test_admission_names_running_and_failed_upstreams_above_fresh_ones(chain: Chain) -> None:
    last = chain.signals[-1]
    assert (await chain.lineage.check(last)).blocking == []

    failed = chain.fact(chain.rates, Phase.FAILED)
    await chain.lineage.apply([failed])
    running = chain.fact(chain.signals[1], Phase.ACTIVE)
    await chain.lineage.apply([running])

    answer = await chain.lineage.check(last)
    assert {each.flow.key: each.flow.word for each in answer.blocking} == {
        chain.rates: "error",
        chain.signals[1]: "running",
    }
    assert [flow.key for flow, _ in answer.admission.direct] == [chain.signals[-2]]
    assert (await chain.lineage.check(chain.prices)).blocking == []  # nothing is above it

    await chain.lineage.apply([chain.fact(chain.signals[1], Phase.CANCELLED, running.run_id)])
    await chain.complete(chain.rates)
    answer = await chain.lineage.check(last)
    assert {each.flow.key for each in answer.blocking} == set(chain.signals[:-1])


async def test_admission_names_all_upstreams_that_are_not_fresh(chain: Chain) -> None:
    await chain.lineage.apply([chain.fact(chain.signals[2], Phase.FAILED)])
    await chain.complete(chain.prices)
    answer = await chain.lineage.check(chain.signals[-1])
    assert {each.flow.key for each in answer.blocking} == set(chain.signals[:-1])
    assert [flow.key for flow, _ in answer.admission.direct] == [chain.signals[-2]]
