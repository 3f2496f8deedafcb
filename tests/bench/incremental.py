"""One day appended to prices and refreshed through three levels of expressions, beside full runs of the same."""

from __future__ import annotations

import datetime as dt
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import polars as pl

from bench.report import Row
from optaic.plugins import ChangedDates, DateRange, Mode
from worker.builtin.delta_store import DeltaStore
from worker.computing import Output, compute
from worker.locations import FlowLocation
from worker.recipe import Component, Input, PipelineRecipe, StoredData

_FIRST = dt.date(1990, 1, 1)
_ENTITIES = 500
_EXPRESSIONS = ("PCT(close, 5)", "ZSCORE(MEAN(value, 20))", "RANK(value)")
_STORE = Component("worker.builtin.delta_store:DeltaStore", {})
_SIMPLE = Component("worker.builtin.simple_accessor:SimpleAccessor", {})
_PIPELINE = "worker.builtin.derivation:ExpressionPipeline"


async def measure(sessions: int) -> list[Row]:
    """The processor's seconds of the three refreshes after one more session, incremental and full; their digests are equal."""
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        before, after = _write_prices(place, sessions)
        bases = _refresh(place / "data", before, [None] * len(_EXPRESSIONS))
        seconds, digests = {}, {}
        last = _FIRST + dt.timedelta(days=sessions)
        for name, changed in (("incremental", ChangedDates(last, last)), ("full", None)):
            start = time.process_time()
            outputs = _refresh(place / "data", after, bases, changed)
            seconds[name] = time.process_time() - start
            digests[name] = [output.digest for output in outputs]
        assert digests["incremental"] == digests["full"]
    title = f"a session appended to {sessions:,} x {_ENTITIES}, refreshed through three levels: processor time (peer: full runs)"
    return [
        Row(title, seconds["incremental"], "s", seconds["full"], seconds["incremental"] / seconds["full"])
    ]


def _write_prices(folder: Path, sessions: int) -> tuple[StoredData, StoredData]:
    days = [_FIRST + dt.timedelta(days=day) for day in range(sessions + 1)]
    entities = [f"E{number:04}" for number in range(_ENTITIES)]
    closes = np.exp(
        np.random.default_rng(1).normal(0, 0.02, (sessions + 1, _ENTITIES)).cumsum(axis=0)
    ).ravel()
    keys = pl.DataFrame({"date": days}).join(pl.DataFrame({"entity": entities}), how="cross")
    table = keys.with_columns(close=pl.Series(closes))
    first = DeltaStore().write(table.head(sessions * _ENTITIES), None, str(folder / "prices"))
    second = DeltaStore().write_part(table, days[-1], first.physical_version, first.uri)
    versions = [StoredData(_STORE, _SIMPLE, first.uri, each.physical_version) for each in (first, second)]
    return versions[0], versions[1]


def _refresh(
    folder: Path,
    prices: StoredData,
    bases: Sequence[Output | None],
    changed: ChangedDates | None = None,
) -> list[Output]:
    """Refresh each level on its base; each reads the one before, the first one reads the prices."""
    data, is_incremental = prices, changed is not None
    outputs = []
    for level, (expression, base) in enumerate(zip(_EXPRESSIONS, bases, strict=True)):
        recipe = PipelineRecipe(
            pipeline=Component(_PIPELINE, {"expression": expression}), store=_STORE, accessor=_SIMPLE,
            inputs=(Input("input", "above", "above", 1, "", data, changed=changed or ChangedDates()),), mode=Mode.INCREMENTAL,
            date_range=DateRange(), timezone="UTC", data_date=None,
            base=None if base is None else StoredData(_STORE, _SIMPLE, base.uri, base.physical_version, digest=base.digest),
            contract=None, macros={}, operators={}, output_schema={}, guardrails=(), readers_hash="", base_readers_hash="",
            max_deleted_share=None, allow_deletion=False, allows_increment=is_incremental,
        )  # fmt: skip
        location = FlowLocation(str(folder), "acme", f"level {level}", "refresh")
        output = compute(recipe, location, "run", lambda *_: None)
        outputs.append(output)
        data = StoredData(_STORE, _SIMPLE, output.uri, output.physical_version)
    return outputs
