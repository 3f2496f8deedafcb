"""Which code a run says that it executes, and what happens when it is refused."""

from __future__ import annotations

import asyncio
import copy
import json
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, NoReturn

import psutil
import pytest

from optaic.common.v1 import flow_pb2
from optaic.run.v1 import run_pb2
from support.polling import eventually
from support.worker import World, make_ticket
from support.worker_peers import fill_composition
from worker import frames
from worker.execution import Ending, Outcome, execute_run
from worker.guardian import NOTHING_PRINTED, Line, make_lines
from worker.reports import Reporter

REFRESH = flow_pb2.FLOW_KIND_REFRESH
BACKTEST = flow_pb2.FLOW_KIND_BACKTEST


async def test_a_run_reports_the_code_of_everything_that_it_executes(world: World, tmp_path: Path) -> None:
    prices = world.runs.submit(world.dataset(), REFRESH)
    await world.execute(prices, tmp_path)
    assert {code.definition_name: code.is_builtin for code in prices.code} == {
        "sp500_prices": True,
        "delta": True,
        "simple": True,
    }
    assert {code.distribution for code in prices.code} == {"optaic"}
    twofold = world.signal("TWICE(close)", "TWICE")
    signal = world.runs.submit(twofold, REFRESH, {"input": prices})
    await world.execute(signal, tmp_path)
    assert signal.status == run_pb2.RUN_STATUS_COMPLETED
    said = {code.definition_name: code for code in signal.code}
    assert set(said) == {"expression", "TWICE", "delta", "simple"}
    twice = said["TWICE"]
    assert (twice.code_ref, twice.definition_version, twice.is_builtin) == (
        "support.worker_plugins:Twice",
        "1.0.0",
        False,
    )
    assert len({code.hash for code in signal.code}) == 4
    assert twice.check == run_pb2.CODE_CHECK_REFUSE
    backtest = world.runs.submit(world.backtest(twofold), BACKTEST, {"prices": prices, "signal": signal})
    await world.execute(backtest, tmp_path)
    assert {code.definition_name for code in backtest.code} == {"delta", "simple"}


async def test_the_store_that_wrote_the_base_is_part_of_the_executed_code(
    world: World, tmp_path: Path
) -> None:
    dataset = world.dataset(definition="probe")
    first = world.runs.submit(dataset, REFRESH)
    await world.execute(first, tmp_path)
    changed = copy.deepcopy(dataset)
    fill_composition(changed.dataset, "probe", {}, store="delta_next")
    run = world.runs.submit(world.instances.put(changed), REFRESH, base=first)
    run.base_version.instance_revision = 1
    await world.execute(run, tmp_path)
    assert run.status == run_pb2.RUN_STATUS_COMPLETED, run.error
    assert {code.definition_name for code in run.code} == {"probe", "delta_next", "delta", "simple"}
    assert run.output_version.physical_version == "1"  # the same code with another version goes on in place


@pytest.mark.parametrize("by_schedule", [False, True])
async def test_code_that_is_refused_is_not_executed(
    world: World, tmp_path: Path, *, by_schedule: bool
) -> None:
    world.runs.refused_code = {"probe"}
    mark = tmp_path / "mark"
    dataset = world.dataset(definition="probe", mark=str(mark))
    run = world.runs.submit(dataset, REFRESH)
    ticket = make_ticket(run, run_id="" if by_schedule else None)
    ending = await execute_run(ticket, world.settings(tmp_path), world.guardians.start)
    ran = list(world.runs.stored.values())[-1]
    assert (ran.status, ran.error.type) == (run_pb2.RUN_STATUS_FAILED, "CODE_CHANGED")
    assert ending == Ending(Outcome.FAILED, "CODE_CHANGED: probe")
    assert not mark.exists()
    await asyncio.wait_for(world.guardians.wait(), 30)  # the child that was to execute it has ended


async def test_the_child_is_born_while_the_code_is_reported(
    world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = world.runs.submit(world.dataset(definition="probe"), REFRESH)
    answer = world.runs.StartRun
    born: list[int] = []

    def count() -> int:
        return len(psutil.Process().children(recursive=True))

    async def wait_for_birth(request: Any, grpc_context: Any) -> Any:
        if request.code:
            await eventually(lambda: born, message="no guardian")
            before = max(born)
            await eventually(lambda: count() > before, message="no process besides the guardian")
        return await answer(request, grpc_context)

    async def start() -> Line:
        line = await world.guardians.start()
        born.append(count())
        return line

    await world.stop()
    monkeypatch.setattr(world.runs, "StartRun", wait_for_birth)
    await world.start()
    ending = await execute_run(make_ticket(run), world.settings(tmp_path), start)
    assert ending.outcome is Outcome.COMPLETED, ending.message


def _fail_to_prepare(monkeypatch: pytest.MonkeyPatch, where: str) -> None:
    def fail(*_: object) -> NoReturn:
        raise OSError("no secrets here")

    async def fail_later(*_: object) -> NoReturn:
        fail()

    monkeypatch.setattr(f"worker.execution.{where}", fail_later if where == "confine" else fail)


@pytest.mark.parametrize("where", ["find_access", "confine"])
async def test_a_refusal_of_the_code_is_not_hidden_by_what_fails_before_the_child(
    world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, where: str
) -> None:
    _fail_to_prepare(monkeypatch, where)
    world.runs.refused_code = {"probe"}
    run = world.runs.submit(world.dataset(definition="probe"), REFRESH)
    ending = await execute_run(make_ticket(run), world.settings(tmp_path), world.guardians.start)
    assert (ending, run.error.type) == (Ending(Outcome.FAILED, "CODE_CHANGED: probe"), "CODE_CHANGED")


@pytest.mark.parametrize("where", ["find_access", "confine"])
async def test_a_run_that_fails_before_its_child_has_said_its_code(
    world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, where: str
) -> None:
    _fail_to_prepare(monkeypatch, where)
    run = world.runs.submit(world.dataset(definition="probe"), REFRESH)
    ending = await execute_run(make_ticket(run), world.settings(tmp_path), world.guardians.start)
    assert ending.message == run.error.type + ": " + run.error.message == "OSError: no secrets here"
    assert "probe" in {code.definition_name for code in run.code}


@pytest.mark.parametrize("said", [None, 1_700_000_000_000_000])
async def test_a_run_whose_code_cannot_be_reported_says_what_its_guardian_knows_of_the_log(
    world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, said: int | None
) -> None:
    async def fail(*_: object) -> NoReturn:
        raise ValueError("no answer")

    async def be_guardian(line: Line) -> None:
        await asyncio.to_thread(frames.receive, line.orders)
        await asyncio.to_thread(frames.receive, line.orders)  # the end
        if said is not None:
            report = asdict(replace(NOTHING_PRINTED, last_line_time=said))
            line.orders.sendall(frames.pack(frames.Kind.REPORT, json.dumps(report).encode()))
        line.close()

    async def start() -> Line:
        ours, guardians = make_lines()
        being.append(asyncio.create_task(be_guardian(guardians)))
        return ours

    being: list[asyncio.Task[None]] = []
    monkeypatch.setattr(Reporter, "state_code", fail)
    run = world.runs.submit(world.dataset(definition="probe"), REFRESH)
    ending = await execute_run(make_ticket(run), world.settings(tmp_path), start)
    await asyncio.gather(*being)
    assert ending.message == "ValueError: no answer"
    (end,) = world.runs.ends
    found = end.last_log_time.ToMicroseconds() if end.HasField("last_log_time") else None
    assert found == said
