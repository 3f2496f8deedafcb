"""Runs that admission refused, and ticks that were skipped, superseded or missed: they change no flow."""

from __future__ import annotations

from devstack.postgres import Postgres
from lineage_service.domain.keys import FlowKey
from lineage_service.domain.runs import Phase, RunFact
from lineage_service.domain.snapshots import FlowSpec, Snapshot
from servicekit.ids import new_id
from support.lineage_service import Lineage, lineage_database, new_tenant

SPEC = FlowSpec("refresh", "same", ())


def _fact(flow: FlowKey, number: int, phase: Phase) -> RunFact:
    return RunFact(flow, new_id(), number, phase, None, fingerprint="same", event_id=new_id())


async def test_a_refused_run_changes_nothing_and_its_event_counts_as_applied(
    postgres_server: Postgres,
) -> None:
    del postgres_server
    async with lineage_database() as database:
        lineage = Lineage(database, new_tenant())
        ran, idle, unknown = (FlowKey(new_id(), "refresh") for _ in range(3))
        await lineage.apply([Snapshot(key.instance_id, 1, "x", 1, (SPEC,)) for key in (ran, idle)])
        await lineage.apply([_fact(ran, 1, Phase.COMPLETED)])
        before = await lineage.state()
        refused = [_fact(key, 0, Phase.CANCELLED) for key in (ran, idle, unknown)]
        await lineage.apply(refused)
        told = (await lineage.messages())[-len(refused) :]
        assert [event for message in told for event in message.caused_by_event_ids] == [
            fact.event_id for fact in refused
        ]
        assert not any(message.changes for message in told)
        # In one batch with the event of a completed run.
        await lineage.apply([_fact(ran, 0, Phase.CANCELLED), _fact(ran, 2, Phase.COMPLETED)])
        after = await lineage.state()
        assert (after[ran].run_number, after[ran].version) == (2, before[ran].version + 1)
        assert after[idle] == before[idle]
        assert unknown not in after
