"""Data comes out of the client as whoever depends on it reads it: through its store and accessor, at any version."""

import datetime as dt
import io
import uuid
from pathlib import Path
from typing import Any

import grpc
import polars as pl
import pytest

from optaic import Client, errors
from optaic.client import AsyncClient
from optaic.common.v1 import flow_pb2
from optaic.definition.v1 import definition_pb2
from optaic.instance.v1 import instance_pb2, instance_service_pb2, spec_pb2
from optaic.lineage.v1 import lineage_pb2
from optaic.plugins import Store
from optaic.rules.artifacts import measure
from optaic.run.v1 import run_pb2, run_service_pb2
from support.fake_services import FakeServices, refuse
from worker.builtin.delta_store import DeltaStore
from worker.builtin.parquet_store import ParquetStore

ID, OTHER = str(uuid.UUID(int=1)), str(uuid.UUID(int=2))
DAYS = [dt.date(2024, 1, day) for day in range(1, 5)]
REFRESH, BACKTEST = flow_pb2.FLOW_KIND_REFRESH, flow_pb2.FLOW_KIND_BACKTEST
STORES: dict[str, type[Store]] = {"delta": DeltaStore, "parquet": ParquetStore}
CODE = {
    "delta": "worker.builtin.delta_store:DeltaStore",
    "parquet": "worker.builtin.parquet_store:ParquetStore",
    "simple": "worker.builtin.simple_accessor:SimpleAccessor",
    "point_in_time": "worker.builtin.point_in_time_accessor:PointInTimeAccessor",
    "field": "worker.builtin.field_accessor:FieldAccessor",
    "absent": "nobody_has_this.package:Store",
}


def table(*closes: float) -> pl.DataFrame:
    """A close each day of `a`, and its double of `b`."""
    rows = [
        (day, entity, close * factor)
        for day, close in zip(DAYS, closes, strict=False)
        for entity, factor in (("a", 1), ("b", 2))
    ]
    return pl.DataFrame(
        rows, schema={"date": pl.Date, "entity": pl.String, "close": pl.Float64}, orient="row"
    )


def files(folder: Path, pattern: str) -> list[Path]:
    return sorted(folder.rglob(pattern))


class World:
    """One instance behind the services, its revisions and its runs."""

    def __init__(self, services: FakeServices, folder: Path) -> None:
        self.uri = (folder / "a tenant" / "data").as_uri()
        self.revisions: list[instance_pb2.Instance] = []
        self.runs: list[run_pb2.Run] = []
        services.on("GetInstance", lambda request, _: self.revisions[(request.revision or 0) - 1])
        services.on("ListInstances", self._list)
        services.on("GetDefinitionVersion", self._version)
        services.on("GetRun", self._run)
        services.on("ListRuns", lambda *_: run_service_pb2.ListRunsResponse(runs=reversed(self.runs)))
        services.on("GetFlowState", lambda *_: lineage_pb2.FlowState(current_version=self._current()))
        self.version = 0  # the current one's number

    def dataset(
        self,
        store: str,
        accessor: str = "simple",
        *,
        kind: str = "dataset",
        timezone: str = "",
        **configs: Any,
    ) -> None:
        """The next revision; `store_config` and `accessor_config` are its configurations."""
        spec = spec_pb2.DatasetSpec(timezone=timezone)
        for component, name in ((spec.store, store), (spec.accessor, accessor)):
            component.definition_version_id = name
        spec.store.config.update(configs.get("store_config", {}))
        spec.accessor.config.update(configs.get("accessor_config", {}))
        given: dict[str, Any] = (
            {"dataset": spec} if kind == "dataset" else {"signal": spec_pb2.SignalSpec(dataset=spec)}
        )
        self.revisions.append(self._instance(REFRESH, **given))

    def refresh(self, store: Store, content: pl.DataFrame) -> run_pb2.Run:
        """A completed run of the newest revision."""
        base = self.runs[-1].output_version.physical_version if self.runs else None
        stored = store.write(content, base, self.uri)
        output = flow_pb2.VersionRef(
            uri=self.uri, physical_version=stored.physical_version, digest=stored.digest
        )
        if not self.runs or stored.digest != self.runs[-1].output_version.digest:
            self.version += 1
        return self.complete(REFRESH, output, {"data": self.uri})

    def backtest(self, folder: Path, **tables: pl.DataFrame) -> run_pb2.Run:
        """A completed backtest with these artifacts."""
        self.revisions.append(self._instance(BACKTEST, backtest=spec_pb2.BacktestSpec()))
        artifacts, manifest = {}, []
        for name, content in tables.items():
            path = folder / f"{name} of {len(self.runs)}.parquet"
            content.write_parquet(path)
            artifacts[name] = path.as_uri()
            size, sha256 = measure(io.BytesIO(path.read_bytes()))
            manifest.append(run_pb2.Artifact(name=name, uri=path.as_uri(), size_bytes=size, sha256=sha256))
        self.version += 1
        output = flow_pb2.VersionRef(uri=folder.as_uri(), physical_version="r", digest=str(len(self.runs)))
        run = self.complete(BACKTEST, output, artifacts)
        run.artifact_manifest.extend(manifest)
        return run

    def _instance(self, flow_kind: Any, **spec: Any) -> instance_pb2.Instance:
        revision = len(self.revisions) + 1
        found = instance_pb2.Instance(instance_id=ID, name="prices", revision=revision, **spec)
        found.flows.add(flow_kind=flow_kind)
        return found

    def complete(self, kind: Any, output: flow_pb2.VersionRef, artifacts: dict[str, str]) -> run_pb2.Run:
        """A completed run with this output."""
        run = run_pb2.Run(
            run_id=str(uuid.UUID(int=100 + len(self.runs))),
            run_number=len(self.runs) + 1,
            instance_id=ID,
            instance_revision=len(self.revisions),
            flow_kind=kind,
            status=run_pb2.RUN_STATUS_COMPLETED,
            output_version=output,
            artifacts=artifacts,
        )
        self.runs.append(run)
        return run

    def _current(self) -> flow_pb2.VersionRef:
        if not self.runs:
            return flow_pb2.VersionRef()
        newest = self.runs[-1]
        found = flow_pb2.VersionRef(
            version=self.version, version_id=newest.run_id, instance_revision=newest.instance_revision
        )
        found.MergeFrom(newest.output_version)
        return found

    def _list(self, request: Any, _: grpc.ServicerContext) -> instance_service_pb2.ListInstancesResponse:
        found = [self.revisions[-1]] if request.name == "prices" else []
        return instance_service_pb2.ListInstancesResponse(instances=found)

    @staticmethod
    def _version(request: Any, _: grpc.ServicerContext) -> definition_pb2.DefinitionVersion:
        return definition_pb2.DefinitionVersion(code_ref=CODE[request.definition_version_id])

    def _run(self, request: Any, context: grpc.ServicerContext) -> Any:
        for run in self.runs:
            if run.run_id == request.run_id:
                return run
        return refuse(context, grpc.StatusCode.NOT_FOUND, "RUN_NOT_FOUND", request.run_id)


@pytest.fixture
def world(addressed: FakeServices, tmp_path: Path) -> World:
    return World(addressed, tmp_path)


@pytest.mark.parametrize("kind", ["dataset", "signal"])
@pytest.mark.parametrize("store", sorted(STORES))
async def test_every_store_is_read_at_every_version(
    world: World, client: AsyncClient, store: str, kind: str
) -> None:
    world.dataset(store, kind=kind)
    contents = [table(1.0), table(1.0), table(1.0, 2.0)]
    runs = [world.refresh(STORES[store](), content) for content in contents]
    newest = contents[2]
    for flow in (ID, "prices", world.revisions[0], flow_pb2.FlowRef(instance_id=ID, flow_kind=REFRESH)):
        assert (await client.data.read(flow)).equals(newest)
    assert (await client.data.read(ID, 2)).equals(newest)
    assert (await client.data.read(ID, 1)).equals(contents[0])
    assert (await client.data.read(ID, runs[0].run_id)).equals(contents[0])
    assert (await client.data.read(ID, runs[1].run_id, output="data")).equals(contents[0])


@pytest.mark.parametrize("store", sorted(STORES))
async def test_rows_and_columns_can_be_chosen(world: World, client: AsyncClient, store: str) -> None:
    world.dataset(store)
    world.refresh(STORES[store](), table(1.0, 2.0, 3.0).with_columns(open=0.5))
    found = await client.data.read(ID, columns=["close"], entities=["b"], start="2024-01-02", end=DAYS[2])
    assert found.rows() == [(DAYS[1], "b", 4.0), (DAYS[2], "b", 6.0)]
    assert found.columns == ["date", "entity", "close"]
    with pytest.raises(
        errors.InvalidArgumentError, match=r"no column volume \(the columns are date, entity, close, open\)"
    ) as wrong:
        await client.data.read(ID, columns=["volume"])
    assert wrong.value.reason == "SCHEMA_MISMATCH"


@pytest.mark.parametrize("store", sorted(STORES))
async def test_data_is_read_through_the_accessor(world: World, client: AsyncClient, store: str) -> None:
    keys = ["date", "entity", "knowledge_date"]
    known = table(1.0).with_columns(knowledge_date=pl.lit(DAYS[1]))
    later = known.with_columns(pl.col("close") * 10, knowledge_date=pl.lit(DAYS[3]))
    config: dict[str, Any] = {"store_config": {"keys": keys}}
    world.dataset(store, "point_in_time", accessor_config={"as_of": "2024-01-02"}, **config)
    content = pl.concat([known, later])
    first = world.refresh(STORES[store]({"keys": keys}), content)
    assert (await client.data.read(ID))["close"].to_list() == [1.0, 2.0]
    world.dataset(store, "field", accessor_config={"field": "close", "output": "price"}, **config)
    world.refresh(
        STORES[store]({"keys": keys}), pl.concat([content, later.with_columns(date=pl.lit(DAYS[1]))])
    )
    assert (await client.data.read(ID)).columns == ["date", "entity", "price"]
    # An older version is read as it was when it was made.
    assert (await client.data.read(ID, first.run_id))["close"].to_list() == [1.0, 2.0]
    assert (await client.data.read(ID, 1))["close"].to_list() == [1.0, 2.0]


async def test_a_change_of_store_leaves_older_versions_readable(world: World, client: AsyncClient) -> None:
    world.dataset("delta")
    world.refresh(DeltaStore(), table(1.0))
    world.dataset("parquet")
    stored = ParquetStore().write(table(1.0, 2.0), None, world.uri)
    output = flow_pb2.VersionRef(
        uri=world.uri, physical_version=stored.physical_version, digest=stored.digest
    )
    world.complete(REFRESH, output, {})
    world.version = 2
    assert (await client.data.read(ID)).height == 4
    assert (await client.data.read(ID, 1)).height == 2


async def test_the_same_content_read_in_another_way_is_another_version(
    world: World, client: AsyncClient
) -> None:
    world.dataset("delta")
    for readers in ("", "simple", "simple", "field"):
        if readers == "field":
            world.dataset("delta", "field", accessor_config={"field": "close", "output": "price"})
        world.refresh(DeltaStore(), table(1.0)).output_version.readers_hash = readers
    world.runs[1].output_version.base_readers_hash = "simple"
    world.version = 2
    world.runs[3].output_version.base_readers_hash = "simple"
    assert (await client.data.read(ID, 1)).columns == ["date", "entity", "close"]
    assert (await client.data.read(ID)).columns == ["date", "entity", "price"]


async def test_a_digest_of_an_earlier_release_is_compared_as_that_release_gave_it(
    world: World, client: AsyncClient
) -> None:
    world.dataset("delta")
    for close in (1.0, 1.0, 2.0):
        world.refresh(DeltaStore(), table(close))
    world.runs[0].output_version.digest = "of the earlier release"
    world.runs[1].output_version.former_digest = "of the earlier release"
    world.version = 2
    assert (await client.data.read(ID, 1))["close"][0] == 1.0
    assert (await client.data.read(ID))["close"][0] == 2.0


async def test_instants_without_a_zone_have_the_days_of_the_dataset(
    world: World, client: AsyncClient, tmp_path: Path
) -> None:
    world.dataset("delta", timezone="Asia/Tokyo")
    kept = pl.DataFrame(
        {"date": [dt.datetime(2024, 1, 1, 15, tzinfo=dt.UTC)], "entity": ["a"], "close": [1.0]}
    )
    kept.write_delta(str(tmp_path / "old"))
    output = flow_pb2.VersionRef(uri=str(tmp_path / "old"), physical_version="0", digest="d")
    world.complete(REFRESH, output, {})
    world.version = 1
    assert (await client.data.read(ID, start=DAYS[1], end=DAYS[1])).height == 1


async def test_every_output_of_a_backtest_is_read(world: World, client: AsyncClient, tmp_path: Path) -> None:
    curve = pl.DataFrame({"date": DAYS, "nav": [1.0, 2.0, 3.0, 4.0]})
    trades = pl.DataFrame({"date": [DAYS[1]] * 2, "quantity": [1.0, -1.0], "entity": ["a", "b"]})
    first = world.backtest(tmp_path, equity_curve=curve.head(1), trades=trades.head(1))
    world.backtest(tmp_path, equity_curve=curve, trades=trades, weights_history=trades, daily_returns=curve)
    assert (await client.data.read(ID)).equals(curve)
    for name, content in {
        "equity_curve": curve,
        "trades": trades,
        "weights_history": trades,
        "daily_returns": curve,
    }.items():
        assert (await client.data.read("prices", output=name)).equals(content)
    for version in (1, first.run_id):
        assert (await client.data.read(ID, version, output="trades")).equals(trades.head(1))
    assert (await client.data.read(ID, start=DAYS[3]))["nav"].to_list() == [4.0]
    one = await client.data.read(ID, output="trades", entities=["b"], columns=["quantity"])
    assert one.rows() == [(DAYS[1], "b", -1.0)]
    with pytest.raises(
        errors.NotFoundError,
        match="no output 'orders' at this version; its outputs are daily_returns, equity_curve",
    ) as refused:
        await client.data.read(ID, output="orders")
    assert refused.value.reason == "OUTPUT_NOT_FOUND"
    with pytest.raises(errors.InvalidArgumentError, match=r"no column entity \(the columns are date, nav\)"):
        await client.data.read(ID, entities=["a"])


async def test_a_missing_version_or_output_is_an_error(world: World, client: AsyncClient) -> None:
    world.dataset("delta")
    with pytest.raises(errors.NotFoundError, match="has no output yet; run it first"):
        await client.data.read(ID)
    run = world.refresh(DeltaStore(), table(1.0))
    for version in (0, -1, 2, 99):
        with pytest.raises(errors.NotFoundError, match=f"version {version}; its newest is 1"):
            await client.data.read(ID, version)
    with pytest.raises(errors.NotFoundError, match="RUN_NOT_FOUND"):
        await client.data.read(ID, OTHER)
    with pytest.raises(errors.NotFoundError, match="no instance named 'price'"):
        await client.data.read("price")
    with pytest.raises(
        errors.NotFoundError, match="no output 'trades' at this version; its outputs are data"
    ):
        await client.data.read(ID, output="trades")
    run.instance_id = OTHER
    with pytest.raises(errors.NotFoundError, match=f"has no version {run.run_id}"):
        await client.data.read(ID, run.run_id)
    run.instance_id, run.status = ID, run_pb2.RUN_STATUS_FAILED
    with pytest.raises(errors.NotFoundError, match="has no version"):
        await client.data.read(ID, run.run_id)


async def test_a_file_of_others_is_not_read(world: World, client: AsyncClient, tmp_path: Path) -> None:
    run = world.backtest(tmp_path, equity_curve=table(1.0))
    (path,) = files(tmp_path, "equity_curve*")
    content = path.read_bytes()
    for changed in (content[:-1], content[:-1] + bytes([content[-1] ^ 1])):
        path.write_bytes(changed)
        for read in (client.data.read(ID), (await client.runs.handle(run.run_id)).artifact("equity_curve")):
            with pytest.raises(errors.ArtifactCorruptError, match="but the run wrote"):
                await read
    run.ClearField("artifact_manifest")  # of a release that kept none
    table(9.0).write_parquet(path)
    assert (await client.data.read(ID)).equals(table(9.0))


async def test_missing_or_damaged_data_is_a_typed_error(
    world: World, client: AsyncClient, tmp_path: Path
) -> None:
    world.dataset("delta")
    world.refresh(DeltaStore(), table(1.0))
    for file in files(tmp_path, "*.parquet"):
        file.unlink()
    with pytest.raises(errors.NotFoundError, match=r"prices: .*cannot be read") as gone:
        await client.data.read(ID)
    assert gone.value.reason == "VERSION_NOT_FOUND"
    run = world.backtest(tmp_path, equity_curve=table(1.0))
    run.ClearField("artifact_manifest")  # of a release that kept none
    (file,) = files(tmp_path, "equity_curve*")
    file.write_bytes(b"nothing of that kind")
    with pytest.raises(errors.FailedPreconditionError, match="not a readable Parquet file") as damaged:
        await client.data.read(ID)
    assert damaged.value.reason == "DATA_NOT_READABLE"
    file.unlink()
    with pytest.raises(errors.NotFoundError, match="prices, equity_curve: "):
        await client.data.read(ID)


async def test_a_plugin_that_is_not_installed_here_is_named(world: World, client: AsyncClient) -> None:
    world.dataset("absent")
    world.refresh(DeltaStore(), table(1.0))
    with pytest.raises(
        errors.FailedPreconditionError, match=r"nobody_has_this.*install its package"
    ) as refused:
        await client.data.read(ID)
    assert refused.value.reason == "PLUGIN_NOT_INSTALLED"


@pytest.mark.parametrize(
    ("wanted", "said"),
    [
        ({"columns": "close"}, "columns: must be a list of names"),
        ({"entities": [1]}, "entities: must be a list of names"),
        ({"entities": 5}, "entities: must be a list of names"),
        ({"start": "tomorrow"}, "start: must be a date like"),
        ({"end": dt.datetime(2024, 1, 1, tzinfo=dt.UTC)}, "end: must be a date like"),
        ({"start": "2024-01-02", "end": "2024-01-01"}, "start: 2024-01-02 is after end"),
    ],
)
async def test_a_wrong_choice_is_refused_before_anything_is_asked(
    services: FakeServices, client: AsyncClient, wanted: dict[str, Any], said: str
) -> None:
    with pytest.raises(errors.InvalidArgumentError, match=said) as refused:
        await client.data.read(ID, **wanted)
    assert [violation.field for violation in refused.value.violations] == list(wanted)[:1]
    assert not services.seen


def test_the_synchronous_client_reads_the_same_data(world: World) -> None:
    world.dataset("parquet")
    world.refresh(ParquetStore(), table(1.0, 2.0))
    with Client.connect(token="secret") as client:
        assert client.data.read("prices", entities=["a"], end="2024-01-01")["close"].to_list() == [1.0]
        with pytest.raises(errors.InvalidArgumentError):
            client.data.read("prices", columns=["volume"])
