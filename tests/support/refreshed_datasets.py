"""Datasets whose refreshes are computed in the test's process, and the sources that they read."""

from __future__ import annotations

import asyncio
import copy
import datetime as dt
import sqlite3
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import polars as pl
from google.protobuf.json_format import MessageToDict

from optaic.common.v1 import flow_pb2
from optaic.definition.v1.definition_pb2 import DefinitionVersion
from optaic.definition.v1.definition_service_pb2 import GetDefinitionVersionRequest
from optaic.plugins import PluginError, Store
from optaic.run.v1 import run_pb2
from support.worker import World
from worker.builtin.delta_store import DeltaStore
from worker.builtin.parquet_store import ParquetStore
from worker.computing import Output, compute
from worker.locations import FlowLocation
from worker.recipe_reading import list_version_ids, make_recipe

DAYS = [dt.date(2024, 1, day) for day in range(1, 9)]
STORES: dict[str, type[Store]] = {"delta": DeltaStore, "parquet": ParquetStore}


@dataclass
class Dataset:
    """A dataset of one definition and the runs that it had."""

    world: World
    root: Path
    store: str
    instance: Any
    last: run_pb2.Run | None = None  # that completed
    inputs: dict[str, Any] | None = None

    async def refresh(self, *, full: bool = False, **parameters: Any) -> run_pb2.Run:
        """Return a run on what the last completed one left, computed in this process."""
        run = self.world.runs.submit(self.instance, flow_pb2.FLOW_KIND_REFRESH, self.inputs, base=self.last)
        run.mode = run_pb2.RUN_MODE_FULL if full else run_pb2.RUN_MODE_INCREMENTAL
        run.parameters.update(parameters)
        try:
            output = await asyncio.to_thread(self._compute, run, await self._find_versions())
        except PluginError as error:
            run.status = run_pb2.RUN_STATUS_FAILED
            run.error.type, run.error.message = error.type, error.message
            return run
        assert isinstance(output.result, run_pb2.PipelineResult)
        run.status = run_pb2.RUN_STATUS_COMPLETED
        run.metrics.update(cast("Any", dict(output.metrics)))
        run.pipeline.CopyFrom(output.result)
        run.output_version.MergeFrom(
            flow_pb2.VersionRef(
                uri=output.uri, physical_version=output.physical_version, digest=output.digest
            )
        )
        self.last = run
        return run

    async def _find_versions(self) -> dict[str, DefinitionVersion]:
        definitions = self.world.definitions
        return {
            version_id: await definitions.GetDefinitionVersion(
                GetDefinitionVersionRequest(definition_version_id=version_id), None
            )
            for revision in self.world.instances.stored.values()
            for version_id in list_version_ids(list(revision.values()))
        }

    def _compute(self, run: run_pb2.Run, versions: dict[str, DefinitionVersion]) -> Output:
        revisions = self.world.instances.stored[run.instance_id]
        base_revision = run.base_version.instance_revision
        base = revisions[base_revision] if base_revision not in {0, run.instance_revision} else None
        upstreams = [self.world.instances.newest(pinned.instance_id) for pinned in run.input_versions]
        recipe = make_recipe(run, revisions[run.instance_revision], upstreams, versions, base)
        location = FlowLocation(str(self.root / "data"), "acme", run.instance_id, "refresh")
        return compute(recipe, location, run.run_id, lambda _fraction, _message: None)

    async def completes(self, *, full: bool = False, **parameters: Any) -> run_pb2.Run:
        run = await self.refresh(full=full, **parameters)
        assert run.status == run_pb2.RUN_STATUS_COMPLETED, run.error
        return run

    async def fails(self, kind: str, *texts: str, full: bool = False, **parameters: Any) -> None:
        before = self.table()
        run = await self.refresh(full=full, **parameters)
        assert run.error.type == kind, run
        for text in texts:
            assert text in run.error.message
        assert self.table().equals(before)

    def configure(self, **config: Any) -> None:
        """Make the next revision."""
        changed = copy.deepcopy(self.instance)  # the old revision stays
        changed.dataset.pipeline.config.update(config)
        self.instance = self.world.instances.put(changed)

    def table(self) -> pl.DataFrame:
        assert self.last is not None
        version = self.last.output_version
        return STORES[self.store]().read(version.uri, version.physical_version)

    def types(self) -> dict[str, pl.DataType]:
        return dict(self.table().drop("date", "entity").schema)


def told(run: run_pb2.Run) -> dict[str, Any]:
    """Its metrics as plain values."""
    return MessageToDict(run.metrics)


class Source:
    """Rows that a dataset reads; each kind of source writes them in its own way."""

    definition = "shown"

    def __init__(self, folder: Path) -> None:
        self.path = folder / "source"

    def config(self) -> dict[str, Any]:
        return {"path": str(self.path)}

    def write(self, **columns: list[Any]) -> None:
        count = len(next(iter(columns.values())))
        pl.DataFrame({"date": DAYS[:count], "entity": ["A"] * count, **columns}).write_parquet(self.path)


class ParquetSource(Source):
    definition = "file"

    def config(self) -> dict[str, Any]:
        return {"url": str(self.path), "format": "parquet"}


class OldParquetSource(ParquetSource):
    definition = "file 1.1.0"


class CsvSource(Source):
    definition = "file"

    def config(self) -> dict[str, Any]:
        return {"url": str(self.path), "format": "csv"}

    def write(self, **columns: list[Any]) -> None:
        count = len(next(iter(columns.values())))
        pl.DataFrame({"date": DAYS[:count], "entity": ["A"] * count, **columns}).write_csv(self.path)


class OldCsvSource(CsvSource):
    definition = "file 1.1.0"


class SqlSource(Source):
    definition = "sql"

    def config(self) -> dict[str, Any]:
        return {"url": f"sqlite:///{self.path}", "table": "px"}

    def write(self, **columns: list[Any]) -> None:
        count = len(next(iter(columns.values())))
        rows = zip(map(str, DAYS[:count]), ["A"] * count, *columns.values(), strict=True)
        with closing(sqlite3.connect(self.path)) as connection, connection:
            connection.execute("drop table if exists px")
            connection.execute(f"create table px (date, entity, {', '.join(columns)})")
            marks = ", ".join("?" * (2 + len(columns)))
            connection.executemany(f"insert into px values ({marks})", rows)  # noqa: S608 - a test's own


class CursorSource(SqlSource):
    def config(self) -> dict[str, Any]:
        return {**super().config(), "cursor": "date"}


class OldCursorSource(CursorSource):
    definition = "sql 1.1.0"
