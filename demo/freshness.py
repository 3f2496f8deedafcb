"""The third chapter of the job: prices become overdue as the clock passes, and the chain below them is brought up to date."""

from __future__ import annotations

import asyncio
import csv
import datetime as dt
import math
from collections.abc import Mapping, Sequence
from contextlib import aclosing
from pathlib import Path

import exchange_calendars

from demo.research import PRICES
from demo.stage import Stage, expect, within
from optaic.cli.refreshes import in_order, line_of
from optaic.client import word
from optaic.lineage.v1 import lineage_pb2
from optaic.run.v1 import refresh_pb2, run_pb2

VENDOR, RETURNS, FOLLOWER = "vendor_prices", "vendor_returns", "vendor_momentum"
EXCHANGE = "XNYS"
_ENTITIES = ("alpha", "beta", "gamma", "delta")
_DAYS = 120  # of prices
_AHEAD = dt.timedelta(seconds=6)  # until the newest session is due
_PATIENCE = 60.0  # seconds
_FAILURES = {run_pb2.RUN_STATUS_FAILED, run_pb2.RUN_STATUS_CANCELLED}


async def freshness(stage: Stage, folder: Path) -> None:
    """Let prices become overdue and refresh the chain below them; a signal follows by itself.

    Args:
        stage: The stack, and what the job has done on it.
        folder: The folder to which the vendor of the prices delivers a file.

    Raises:
        StepFailedError: a step did not give what it promises.
    """
    source, sessions = folder / "vendor_prices.csv", await asyncio.to_thread(_sessions)
    async with stage.step("A vendor's prices, returns on them, and a signal that follows by itself"):
        await _create(stage, _deliver(source, sessions[:-1]))
        await _refresh(stage)
        await _follow(stage, 1)
    async with stage.step(
        f"The session of {sessions[-1]} is due: the prices are overdue as the clock passes"
    ):
        await _become_overdue(stage, sessions[-1])
    async with stage.step("The vendor delivers; one refresh brings prices and returns up to date"):
        _deliver(source, sessions)
        await _refresh(stage)
    async with stage.step(f"{FOLLOWER} has followed by itself"):
        await _follow(stage, 2)
        await _be_up_to_date(stage, sessions[-1])


def _sessions() -> Sequence[dt.date]:
    """Return the newest trading days."""
    today = dt.datetime.now(dt.UTC).date()
    calendar = exchange_calendars.get_calendar(EXCHANGE, start=str(today - dt.timedelta(days=_DAYS)))
    return [each.date() for each in calendar.sessions if each.date() <= today]


def _deliver(path: Path, sessions: Sequence[dt.date]) -> str:
    """Write the file of a vendor, a close for each session and entity; return where it is."""
    part = path.with_suffix(".part")
    with part.open("w", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(["date", "entity", "close"])
        for session in sessions:
            for number, entity in enumerate(_ENTITIES):
                wave = math.sin(session.toordinal() / (5 + 3 * number))
                rows.writerow([session.isoformat(), entity, f"{100 + 10 * number + 5 * wave:.4f}"])
    part.replace(path)
    return str(path.absolute())


async def _create(stage: Stage, url: str) -> None:
    project, instances = stage.instances[PRICES].project_id, stage.client.instances
    prices = await instances.create(
        project=project,
        name=VENDOR,
        dataset={"pipeline": {"definition_name": "file", "config": {"url": url}}},
    )
    returns = await instances.create(
        project=project,
        name=RETURNS,
        dataset={"pipeline": _expression("close / REF(close, 1) - 1")},
        upstreams={"input": prices.instance_id},
    )
    follower = await instances.create(
        project=project,
        name=FOLLOWER,
        signal={"dataset": {"pipeline": _expression("ZSCORE(MEAN(value, 10))")}},
        upstreams={"input": returns.instance_id},
        auto_refresh={"mode": "all_upstreams"},
    )
    for instance in (prices, returns, follower):
        active = await instances.wait_until_active(instance.instance_id)
        stage.instances[instance.name] = active


def _expression(text: str) -> Mapping[str, object]:
    return {"definition_name": "expression", "config": {"expression": text}}


async def _refresh(stage: Stage) -> None:
    """Submit one refresh of the returns with what is above them, and show its tree until it has ended."""
    handle = await stage.client.refresh(stage.instances[RETURNS], upstream=True)
    flows: dict[str, refresh_pb2.RefreshFlow] = {}
    try:
        async with within(_PATIENCE, "the refresh to end"), aclosing(handle.watch()) as changes:
            async for change in changes:
                flows |= {flow.instance_name: flow for flow in change.flows}
                stage.tree = [line_of(flow) for flow in in_order(flows.values())]
                stage.on_change()
    finally:
        stage.tree = []
    ended = list(in_order(flows.values()))
    stage.notes += [f"refresh: {'  '.join(line_of(flow))}" for flow in ended]
    expect(word(handle.refresh, "status") == "COMPLETED", f"the refresh to complete, it is {handle.refresh}")
    expect([flow.instance_name for flow in ended] == [VENDOR, RETURNS], "a refresh of prices and returns")
    stage.refreshes.append((handle.refresh, ended))
    for flow in ended:
        stage.runs.append((flow.instance_name, await stage.client.runs.get(flow.run_id)))


async def _follow(stage: Stage, count: int) -> None:
    """Wait until the signal has run by itself so many times and is READY."""
    follower = stage.instances[FOLLOWER]
    ended: list[run_pb2.Run] = []
    promise = f"{FOLLOWER} to run by itself {count} times in all"
    async with within(_PATIENCE, promise):
        while len(ended) < count:
            runs = await stage.client.runs.list(follower)
            for run in runs:
                expect(
                    run.status not in _FAILURES,
                    f"{promise}, {word(run, 'status')}: {run.error.type}: {run.error.message}",
                )
            ended = [run for run in runs if run.status == run_pb2.RUN_STATUS_COMPLETED]
            await asyncio.sleep(0.1)
    await stage.observed.until(
        lambda: stage.observed.statuses.get(follower.instance_id) == "READY", f"{FOLLOWER} READY"
    )
    newest = max(ended, key=lambda run: run.run_number)
    stage.runs.append((FOLLOWER, newest))
    expect(len(runs) == count, f"{FOLLOWER} to have followed once for each refresh, it has {len(runs)} runs")
    expect(word(newest, "trigger") == "UPSTREAM", f"{FOLLOWER} to have run by itself")


async def _become_overdue(stage: Stage, session: dt.date) -> None:
    """Give the prices a daily policy by which the newest session is due in a moment, and wait for that."""
    prices = stage.instances[VENDOR]
    seen_before = len(stage.observed.history)
    due_time = dt.datetime.combine(session, dt.time(), dt.UTC)
    policy = {
        "frequency": "daily",
        "exchange_calendar": EXCHANGE,
        "due_time": "00:00",
        "timezone": "UTC",
        "grace": dt.datetime.now(dt.UTC) + _AHEAD - due_time,
    }
    stage.instances[VENDOR] = await stage.client.instances.update(prices, {"freshness_policy": policy})
    for name in (VENDOR, RETURNS, FOLLOWER):
        await stage.until_words(stage.instances[name].instance_id, seen_before, "STALE", _PATIENCE)
    ((cause, path),) = await stage.explain(FOLLOWER)
    expect(
        cause.kind == lineage_pb2.CAUSE_KIND_OVERDUE and path == [VENDOR, RETURNS, FOLLOWER],
        f"{FOLLOWER} to be stale because the prices are overdue, got {cause}",
    )
    state = await stage.client.lineage.state(stage.instances[VENDOR])
    expect(
        state.expected_data_date == session.isoformat(),
        f"the policy to expect {session}, it expects {state.expected_data_date}",
    )
    stage.notes.append(f"{VENDOR}: overdue, {state.expected_data_date} is expected")


async def _be_up_to_date(stage: Stage, session: dt.date) -> None:
    """Check that the prices have the session that was expected, and that nothing is late any more."""
    status = await stage.client.status.get(stage.instances[VENDOR].instance_id)
    (last,) = {flow.last_data_date for flow in status.flows}
    expect(last == session.isoformat(), f"prices until {session}, they end at {last}")
