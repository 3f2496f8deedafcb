"""A flow whose last run failed says why, wherever its state is told, until a run completes."""

from __future__ import annotations

from dataclasses import replace

from devstack.postgres import Postgres
from lineage_service.conversion import state_message
from lineage_service.domain.keys import FlowKey
from lineage_service.domain.runs import NO_FAILURE, Failure, Phase, RunFact, failure_of
from lineage_service.domain.snapshots import EdgeSpec, FlowSpec, Snapshot
from servicekit.ids import new_id
from support.lineage_service import Lineage, lineage_database, new_tenant

_WHY = Failure("SourceNotFound", "there is no file panel.csv")


def _failed(flow: FlowKey, number: int) -> RunFact:
    return RunFact(flow, new_id(), number, Phase.FAILED, None, event_id=new_id(), failure=_WHY)


def _completed(flow: FlowKey, number: int) -> RunFact:
    return replace(
        _failed(flow, number), phase=Phase.COMPLETED, failure=NO_FAILURE, fingerprint="f", digest="d"
    )


def test_a_failure_is_shown_in_one_line_of_bounded_length() -> None:
    assert failure_of("SourceNotFound", "there is\n no file panel.csv\n") == _WHY
    long = failure_of("X", "a" * 600)
    assert long.message == "a" * 500 + "..."
    assert failure_of("X", "").text == "X"


async def test_a_failed_flow_says_why_until_a_run_completes(postgres_server: Postgres) -> None:
    del postgres_server
    prices, signal = FlowKey(new_id(), "refresh"), FlowKey(new_id(), "refresh")
    async with lineage_database() as database:
        lineage = Lineage(database, new_tenant())
        specs = {
            prices: FlowSpec("refresh", "f", ()),
            signal: FlowSpec("refresh", "f", (EdgeSpec(prices, "input", 1),)),
        }
        for key, spec in specs.items():
            await lineage.apply(
                [Snapshot(key.instance_id, 1, "prices" if key == prices else "signal", 1, (spec,))]
            )
        await lineage.apply([_failed(prices, 1)])
        why = "run 1 of prices failed: SourceNotFound: there is no file panel.csv"
        state, explanations = await lineage.explain(prices)
        assert state.flow.failure == _WHY
        assert [cause.message for cause in state.causes] == [why]
        assert [each.cause.message for each in explanations] == [why]
        message = state_message(state.flow, state.causes)
        assert (message.failure.type, message.failure.message) == _WHY
        _, explanations = await lineage.explain(signal)
        assert why in [each.cause.message for each in explanations]
        (blocking,) = (await lineage.check(signal)).blocking
        assert blocking.reason == "run 1 failed: SourceNotFound: there is no file panel.csv"
        told = [change for each in await lineage.messages() for change in each.changes]
        assert [change.failure.type for change in told if change.run_number == 1] == ["SourceNotFound"]

        await lineage.apply([_completed(prices, 2)])
        state, _ = await lineage.explain(prices)
        assert state.flow.failure == NO_FAILURE
        assert not state_message(state.flow, state.causes).HasField("failure")
        await lineage.apply([_failed(prices, 1)])  # it comes late
        assert (await lineage.explain(prices))[0].flow.failure == NO_FAILURE

        await lineage.apply([_failed(prices, 3)])
        state, explanations = await lineage.explain(prices)
        assert (state.flow.failure, state.flow.is_fresh, explanations) == (_WHY, True, [])


async def test_a_failure_that_an_earlier_release_recorded_is_told_as_before(
    postgres_server: Postgres,
) -> None:
    del postgres_server
    prices = FlowKey(new_id(), "refresh")
    async with lineage_database() as database:
        lineage = Lineage(database, new_tenant())
        await lineage.apply([Snapshot(prices.instance_id, 1, "prices", 1, (FlowSpec("refresh", "f", ()),))])
        await lineage.apply([replace(_failed(prices, 1), failure=NO_FAILURE)])
        state, _ = await lineage.explain(prices)
        assert [cause.message for cause in state.causes] == ["prices has never succeeded"]
