"""Data in the embedded object store beside data in a folder: a refresh of the demo's prices, and many small files of a run."""

from __future__ import annotations

import asyncio
import shutil
import tempfile
import time
from pathlib import Path

from bench.report import Row
from devstack import seaweedfs
from optaic.plugins import DateRange, Mode
from support.object_store import installed, running_object_store
from worker.computing import Output, compute
from worker.locations import FlowLocation, copy_folder
from worker.manifest import list_artifacts
from worker.recipe import Component, PipelineRecipe

_FILES, _BYTES = 1_000, 1_000
_ATTEMPTS = 5  # the best of them counts: the first one opens connections
_STORE = Component("worker.builtin.delta_store:DeltaStore", {})
_SIMPLE = Component("worker.builtin.simple_accessor:SimpleAccessor", {})
_PRICES = Component("worker.builtin.prices:SP500Prices", {})


async def measure() -> list[Row]:
    """The seconds of both; nothing where the server is not installed."""
    return await asyncio.to_thread(_measure) if seaweedfs.is_installed() else []


def _measure() -> list[Row]:
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        (place / "server").mkdir()
        with running_object_store(place / "server") as server, installed(server.access()):
            roots = (str(place / "data"), seaweedfs.DATA_ROOT)
            refreshed = [_refresh(root, number) for number in range(_ATTEMPTS) for root in roots]
            written = [_write_files(place, root, number) for number in range(_ATTEMPTS) for root in roots]
    rows = {output.metrics["rows"] for _, output in refreshed}
    assert len({output.digest for _, output in refreshed}) == len(rows) == 1
    (beside, in_store), (files, objects) = (
        [min(seconds[0::2]), min(seconds[1::2])] for seconds in ([each for each, _ in refreshed], written)
    )
    refresh = f"refresh of the demo's {rows.pop():,} prices in S3 (peer: in a folder)"
    many = f"{_FILES:,} small files of a run written to S3 and read for its manifest (peer: in a folder; limit: 10 s)"
    return [
        Row(refresh, in_store, "s", beside, in_store / beside, 2.0),
        Row(many, objects, "s", files, objects / files),
    ]


def _refresh(root: str, number: int) -> tuple[float, Output]:
    """Refresh a new dataset; return the seconds and the output."""
    recipe = PipelineRecipe(
        pipeline=_PRICES, store=_STORE, accessor=_SIMPLE, inputs=(), mode=Mode.FULL, date_range=DateRange(),
        timezone="UTC", data_date=None, base=None, contract=None, macros={}, operators={}, output_schema={}, guardrails=(),
        readers_hash="", base_readers_hash="", max_deleted_share=None, allow_deletion=False,
    )  # fmt: skip
    location = FlowLocation(root, "default", f"prices {number}", "refresh")
    start = time.perf_counter()
    output = compute(recipe, location, "run", lambda *_: None)
    return time.perf_counter() - start, output


def _write_files(folder: Path, root: str, number: int) -> float:
    """Write the files of a run, and make its manifest; return the seconds."""
    source = folder / "files"
    shutil.rmtree(source, ignore_errors=True)
    source.mkdir()
    for each in range(_FILES):
        (source / f"{each:04}.bin").write_bytes(bytes([each % 256]) * _BYTES)
    uri = FlowLocation(root, "default", "model", "training").outputs_uri(f"run {number}")
    start = time.perf_counter()
    copy_folder(source, f"{uri}files")
    manifest = list_artifacts({"files": f"{uri}files"}, uri)
    seconds = time.perf_counter() - start
    assert len(manifest) == _FILES
    return seconds
