"""What a run owes MLflow never stands in its way: it completes, and the debt is paid, dropped or withdrawn later."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path
from typing import Any

import pytest

from optaic.common.v1 import flow_pb2
from optaic.rules.locations import local_path
from optaic.run.v1 import run_pb2
from servicekit.ids import new_id
from support.panels import make_prices
from support.polling import eventually
from support.telemetry import FakeSystem
from support.worker import World, make_ticket
from support.worker_peers import TENANT
from worker.execution import Ending, Outcome, execute_run
from worker.peers import connect_peers
from worker.telemetry.debts import Debt
from worker.telemetry.delivery import Telemetry
from worker.telemetry.spool import Spool
from worker.written_files import FileGoneError, list_files

REFRESH, TRAINING = flow_pb2.FLOW_KIND_REFRESH, flow_pb2.FLOW_KIND_TRAINING


class _Bench:
    """A worker's telemetry with a system of the test's own, and a training to execute."""

    def __init__(self, world: World, folder: Path) -> None:
        self.world, self.folder, self.system = world, folder, FakeSystem()
        self.changes: dict[str, Any] = {"telemetry_patience_seconds": 5.0}

    async def prepare(self) -> None:
        make_prices(40).write_csv(self.folder / "prices.csv")
        dataset = self.world.dataset(definition="file", url=str(self.folder / "prices.csv"))
        self.prices = self.world.runs.submit(dataset, REFRESH)
        await self.world.execute(self.prices, self.folder)

    def telemetry(self) -> Telemetry:
        """Return the telemetry of a worker that has just started."""
        return Telemetry(self.world.settings(self.folder, **self.changes), {"mlflow": self.system})

    def spool(self) -> list[Debt]:
        return Spool(self.folder / "telemetry", 10).list()

    def submit(self) -> run_pb2.Run:
        model = self.world.model("mean_model")
        return self.world.runs.submit(model, TRAINING, {"features": self.prices})

    async def execute(self, run: run_pb2.Run) -> Ending:
        settings = self.world.settings(self.folder, **self.changes)
        telemetry = self.telemetry()
        async with connect_peers(settings) as peers:
            return await execute_run(make_ticket(run), settings, self.world.guardians.start, peers, telemetry)

    async def sweep(self) -> bool:
        async with connect_peers(self.world.settings(self.folder)) as peers:
            return await self.telemetry().sweep(peers)


@pytest.fixture
async def bench(world: World, tmp_path: Path) -> _Bench:
    made = _Bench(world, tmp_path)
    await made.prepare()
    return made


async def test_what_is_delivered_at_once_is_named_in_the_completed_run(bench: _Bench) -> None:
    run = bench.submit()
    assert (await bench.execute(run)).outcome is Outcome.COMPLETED
    assert list(run.telemetry_pending) == []
    assert (run.training.mlflow_run_id, run.training.model_version) == (f"m-{run.run_id}", "1")
    assert bench.spool() == []
    debt = bench.system.given[run.run_id]
    assert debt.payload["experiment"] == f"{TENANT}.{run.instance_id}"
    assert debt.payload["metrics"]["validation_rmse"] == run.metrics["validation_rmse"]
    assert debt.payload["params"]["target"] == '{"expression": "PCT(close, 1)", "horizon": 3}'
    assert all(uri.startswith(run.outputs_uri) for uri in debt.files.values())


async def test_a_run_completes_while_the_system_is_away_and_delivers_after_a_restart(bench: _Bench) -> None:
    bench.system.is_away = True
    run = bench.submit()
    assert (await bench.execute(run)).outcome is Outcome.COMPLETED
    assert list(run.telemetry_pending) == ["mlflow"]
    assert run.training.mlflow_run_id == ""
    assert len(bench.spool()) == 1
    assert not await bench.sweep()
    bench.system.is_away = False
    assert await bench.sweep()
    assert list(run.telemetry_pending) == []
    assert run.training.mlflow_run_id == f"m-{run.run_id}"
    assert bench.spool() == []
    calls = bench.system.calls
    assert await bench.sweep()
    assert bench.system.calls == calls


async def test_a_debt_of_before_a_move_is_delivered_from_the_new_data_root(bench: _Bench) -> None:
    bench.system.is_away = True
    run = bench.submit()
    await bench.execute(run)
    moved = bench.folder / "moved"
    moved.mkdir()
    (bench.folder / TENANT).rename(moved / TENANT)
    bench.system.is_away = False
    settings = bench.world.settings(moved, telemetry_folder=str(bench.folder / "telemetry"))
    async with connect_peers(settings) as peers:
        assert await Telemetry(settings, {"mlflow": bench.system}).sweep(peers)
    found = bench.system.given[run.run_id].list_files()
    assert found
    assert all(Path(each.uri).is_relative_to(moved) for each in found)


async def test_a_slow_system_holds_a_run_for_a_limited_time(bench: _Bench) -> None:
    bench.system.is_slow = True
    bench.changes = {"telemetry_patience_seconds": 0.2}
    run = bench.submit()
    ending = await bench.execute(run)
    assert ending.outcome is Outcome.COMPLETED
    assert list(run.telemetry_pending) == ["mlflow"]


@pytest.mark.parametrize("was_delivered", [True, False])
async def test_what_a_lost_run_was_given_is_withdrawn(bench: _Bench, *, was_delivered: bool) -> None:
    bench.system.is_away = not was_delivered
    run = bench.submit()
    # As if run-service gave the run up while its worker delivered.
    bench.system.before = lambda: setattr(bench.world.runs, "is_fenced", True)
    assert (await bench.execute(run)).outcome is not Outcome.COMPLETED
    assert (run.run_id in bench.system.given) is was_delivered
    bench.system.is_away = False
    assert await bench.sweep()
    assert bench.system.given == {}
    assert bench.system.withdrawn == [run.run_id]
    assert bench.spool() == []


async def test_a_worker_that_died_before_the_completion_withdraws_only_once_the_run_has_failed(
    bench: _Bench,
) -> None:
    run = bench.submit()
    run.status = run_pb2.RUN_STATUS_RUNNING
    debt = Debt(TENANT, run.instance_id, run.run_id, "mlflow", f"token-{run.run_id}", {}, {})
    (bench.folder / "telemetry").mkdir(mode=0o700, exist_ok=True)
    Spool(bench.folder / "telemetry", 10).owe(debt)
    assert not await bench.sweep(), "the run may complete yet"
    assert bench.system.withdrawn == []
    run.status = run_pb2.RUN_STATUS_FAILED
    assert await bench.sweep()
    assert bench.system.withdrawn == [run.run_id]


async def test_what_can_never_be_delivered_is_dropped(bench: _Bench) -> None:
    bench.system.is_gone = True
    run = bench.submit()
    assert (await bench.execute(run)).outcome is Outcome.COMPLETED
    assert list(run.telemetry_pending) == ["mlflow"]
    assert await bench.sweep()
    assert list(run.telemetry_pending) == []
    assert run.training.mlflow_run_id == ""
    assert bench.spool() == []


async def test_a_full_spool_drops_and_the_run_says_so(bench: _Bench) -> None:
    bench.system.is_away = True
    bench.changes = {"telemetry_entries": 1}
    await bench.execute(bench.submit())
    run = bench.submit()
    assert (await bench.execute(run)).outcome is Outcome.COMPLETED
    assert list(run.telemetry_pending) == []
    assert "OPTAIC_TELEMETRY_ENTRIES" in str(run.metrics["telemetry_dropped"])
    assert len(bench.spool()) == 1


async def test_two_sweeps_at_once_deliver_once(bench: _Bench) -> None:
    bench.system.is_away = True
    run = bench.submit()
    await bench.execute(run)
    bench.system.is_away, calls = False, bench.system.calls
    await asyncio.gather(bench.sweep(), bench.sweep())
    assert bench.system.calls == calls + 1
    assert list(run.telemetry_pending) == []


async def test_one_refused_debt_does_not_keep_the_others_waiting(bench: _Bench) -> None:
    bench.system.is_away = True
    first, second = bench.submit(), bench.submit()
    for run in (first, second):
        await bench.execute(run)
    bench.system.is_away = False
    deliver = bench.system.deliver

    async def refuse_first(debt: Debt) -> Any:
        if debt.run_id == first.run_id:
            raise ValueError("not this one")
        return await deliver(debt)

    bench.system.deliver = refuse_first  # type: ignore[method-assign] # for this test
    assert not await bench.sweep()
    assert (list(first.telemetry_pending), list(second.telemetry_pending)) == (["mlflow"], [])


async def test_the_loop_delivers_soon_after_a_run_has_left_something(bench: _Bench) -> None:
    bench.system.is_away = True
    settings = bench.world.settings(bench.folder)
    telemetry, stop = bench.telemetry(), asyncio.Event()
    async with connect_peers(settings) as peers:
        looping = asyncio.create_task(telemetry.run(peers, stop))
        run = bench.submit()
        await execute_run(make_ticket(run), settings, bench.world.guardians.start, peers, telemetry)
        bench.system.is_away = False
        await eventually(lambda: _is_settled(run))
        stop.set()
        await looping
    assert list(run.telemetry_pending) == []


async def _is_settled(run: run_pb2.Run) -> bool:
    return not run.telemetry_pending


def _debt(run_id: str = "", system: str = "mlflow") -> Debt:
    return Debt(TENANT, new_id(), run_id or new_id(), system, "token", {"a": 1.5}, {"model": "/x"})


def test_a_debt_is_read_as_it_was_written(tmp_path: Path) -> None:
    spool, debts = Spool(tmp_path, 10), [_debt() for _ in range(3)]
    for debt in debts:
        spool.owe(debt)
    assert spool.list() == sorted(debts, key=lambda debt: debt.run_id)
    assert all(path.stat().st_mode & 0o077 == 0 for path in tmp_path.iterdir())
    spool.settle(debts[0])
    spool.settle(debts[0])
    assert len(spool.list()) == 2


def test_a_file_that_is_no_debt_hides_no_other(tmp_path: Path) -> None:
    spool = Spool(tmp_path, 10)
    (tmp_path / "0.json").write_text("{")
    (tmp_path / "1.json").write_text("{}")
    (tmp_path / ".half").write_text("{")
    spool.owe(debt := _debt())
    assert spool.list() == [debt]


@pytest.mark.parametrize("name", ["../x", "a/b", ""])
def test_a_debt_whose_name_would_leave_the_folder_is_refused(name: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no name of a file"):
        Spool(tmp_path, 10).owe(_debt(new_id(), system=name))


def test_no_link_of_user_code_is_followed(tmp_path: Path) -> None:
    secret, outputs = tmp_path / "secret", tmp_path / "outputs"
    (outputs / "model" / "below").mkdir(parents=True)
    (outputs / "model" / "fine").write_text("fine")
    secret.write_text("secret")
    (outputs / "model" / "link").symlink_to(secret)
    os.mkfifo(outputs / "model" / "pipe")
    os.link(secret, outputs / "model" / "below" / "hard")
    found = {upload.name: upload for upload in list_files({"model": str(outputs / "model")}, 10)}
    assert found.keys() == {"model/fine", "model/below/hard"}
    with found["model/fine"].open() as file:
        assert file.read() == b"fine"
    (outputs / "folder").symlink_to(tmp_path)
    os.mkfifo(outputs / "pipe")
    for name in ("folder", "pipe"):
        with pytest.raises(FileGoneError, match="no plain file and no folder"):
            list_files({name: str(outputs / name)}, 10)
    with pytest.raises(FileGoneError):
        found["model/below/hard"].open()
    (outputs / "model" / "below" / "hard").unlink()
    (outputs / "model" / "below").rmdir()
    (outputs / "model" / "below").symlink_to(tmp_path)
    (tmp_path / "hard").write_text("x")
    with pytest.raises(FileGoneError, match="below a link"):
        found["model/below/hard"].open()
    with pytest.raises(FileGoneError, match="is gone"):
        list_files({"model": local_path(f"{outputs}/nothing")}, 10)
