"""Runs of each kind that end in the middle: nothing of them is published, and no process is left."""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import pytest

from optaic.common.v1 import flow_pb2
from optaic.rules.locations import flow_folder, local_path, outputs_folder
from optaic.run.v1 import run_pb2
from servicekit.enums import enum_word
from support.polling import eventually
from support.worker import World
from support.worker_peers import pin
from worker import trained
from worker.execution import Outcome

REFRESH = flow_pb2.FLOW_KIND_REFRESH


@dataclass
class Job:
    """What runs of all kinds read; the gated prices are read when a run is under way."""

    world: World
    prices: run_pb2.Run
    signal: Any
    signalled: run_pb2.Run
    gated: run_pb2.Run


def submit_refresh(job: Job) -> run_pb2.Run:
    return job.world.runs.submit(job.world.signal("close"), REFRESH, {"input": job.gated})


def submit_preview(job: Job) -> run_pb2.Run:
    read = {"input": job.prices, "prices": job.gated}
    return job.world.runs.submit(job.world.experiment(), flow_pb2.FLOW_KIND_PREVIEW, read)


def submit_backtest(job: Job) -> run_pb2.Run:
    read = {"signal": job.signalled, "prices": job.gated}
    return job.world.runs.submit(job.world.backtest(job.signal), flow_pb2.FLOW_KIND_BACKTEST, read)


def submit_optimization(job: Job) -> run_pb2.Run:
    optimizer = job.world.optimizer([job.signal], job.world.instances.newest(job.gated.instance_id))
    read = {"signal": job.signalled, "covariance": job.gated}
    return job.world.runs.submit(optimizer, flow_pb2.FLOW_KIND_OPTIMIZE, read)


def submit_monitoring(job: Job) -> run_pb2.Run:
    dataset = job.world.instances.newest(job.gated.instance_id)
    return job.world.runs.submit(dataset, flow_pb2.FLOW_KIND_MONITORING, {"monitored": job.gated})


def submit_training(job: Job) -> run_pb2.Run:
    return job.world.runs.submit(job.world.model(), flow_pb2.FLOW_KIND_TRAINING, {"features": job.gated})


def submit_inference(job: Job) -> run_pb2.Run:
    """Submit an inference of a version of which as much is there as is read before the features."""
    model = job.world.model()
    model.upstream_refs.add(resource_id=job.gated.instance_id, role="features", name="gated")
    model = job.world.instances.put(model)
    training = job.world.runs.submit(model, flow_pb2.FLOW_KIND_TRAINING)
    root = job.prices.output_version.uri.partition("/acme/")[0]
    folder = outputs_folder("acme", model.instance_id, "training", training.run_id)
    training.status, training.training.train_end = run_pb2.RUN_STATUS_COMPLETED, "2020-01-02"
    training.output_version.uri, training.output_version.physical_version = (
        f"{root}/{folder}/",
        training.run_id,
    )
    place = Path(local_path(training.output_version.uri))
    place.mkdir(parents=True)
    (place / trained.FACTS).write_text('{"train_end": "2020-01-02", "label_end": "2020-01-03"}')
    read = {"features": job.gated, "model": training}
    return job.world.runs.submit(model, flow_pb2.FLOW_KIND_INFERENCE, read)


KINDS = {
    "refresh": submit_refresh,
    "preview": submit_preview,
    "backtest": submit_backtest,
    "optimize": submit_optimization,
    "monitoring": submit_monitoring,
    "training": submit_training,
    "inference": submit_inference,
}


@pytest.fixture(params=KINDS)
def submit(request: pytest.FixtureRequest) -> Callable[[Job], run_pb2.Run]:
    return KINDS[request.param]


async def execute(world: World, run: run_pb2.Run, root: Path) -> run_pb2.Run:
    assert (await world.execute(run, root)).outcome is Outcome.COMPLETED, run.error
    return run


async def make_job(world: World, root: Path, *, is_fatal: bool = False) -> Job:
    prices = await execute(world, world.runs.submit(world.dataset(), REFRESH), root)
    signal = world.signal()
    signalled = await execute(world, world.runs.submit(signal, REFRESH, {"input": prices}), root)
    dataset = world.dataset("gated")
    pin(dataset.dataset.accessor, "gated", gate=str(root / "gate"), is_fatal=is_fatal)
    dataset = world.instances.put(dataset)
    gated = await execute(world, world.runs.submit(dataset, REFRESH), root)
    return Job(world, prices, signal, signalled, gated)


def list_written(root: Path, run: run_pb2.Run) -> list[str]:
    """Return the files of the flow, its traceback excepted."""
    folder = flow_folder("acme", run.instance_id, enum_word(flow_pb2.FlowKind, run.flow_kind))
    files = (file for file in (root / folder).rglob("*") if file.is_file())
    return [file.name for file in files if file.name != "traceback.txt"]


def assert_nothing_is_left(root: Path, run: run_pb2.Run) -> None:
    assert not run.HasField("output_version")
    assert set(run.artifacts) <= {"traceback"}
    assert list_written(root, run) == []


async def enter(job: Job, run: run_pb2.Run, root: Path) -> tuple[asyncio.Task[Any], int]:
    """Begin a run; return it once it waits at the gate, with the process that waits."""
    task = asyncio.create_task(job.world.execute(run, root))
    entered = root / "gate.entered"
    await eventually(lambda: entered.exists() and bool(entered.read_text(encoding="ascii")), 60)
    return task, int(entered.read_text(encoding="ascii"))


def has_ended(pid: int) -> bool:
    try:
        return bool(psutil.Process(pid).status() == psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return True


async def test_a_cancelled_run_ends_at_once(
    world: World, tmp_path: Path, submit: Callable[[Job], run_pb2.Run]
) -> None:
    job = await make_job(world, tmp_path)
    run = submit(job)
    task, pid = await enter(job, run, tmp_path)
    run.status = run_pb2.RUN_STATUS_CANCELLED  # by run-service; the heartbeat hears of it
    assert (await task).outcome is Outcome.CANCELLED
    await eventually(lambda: has_ended(pid))
    assert_nothing_is_left(tmp_path, run)


async def test_a_run_whose_process_is_killed_fails(
    world: World, tmp_path: Path, submit: Callable[[Job], run_pb2.Run]
) -> None:
    job = await make_job(world, tmp_path, is_fatal=True)
    run = submit(job)
    assert (await world.execute(run, tmp_path)).outcome is Outcome.FAILED
    assert run.error.type == "PROCESS_KILLED"
    assert_nothing_is_left(tmp_path, run)


async def test_a_run_whose_worker_is_stopped_says_so(
    world: World, tmp_path: Path, submit: Callable[[Job], run_pb2.Run]
) -> None:
    job = await make_job(world, tmp_path)
    run = submit(job)
    task, pid = await enter(job, run, tmp_path)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert run.error.type == "WorkerStopped"
    await eventually(lambda: has_ended(pid))
    assert_nothing_is_left(tmp_path, run)
