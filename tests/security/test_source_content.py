"""No error of a source repeats what the source contains: neither its message nor its traceback."""

from __future__ import annotations

import datetime as dt
import gzip
import io
import sqlite3
import zipfile
from collections.abc import Callable
from contextlib import closing
from decimal import Decimal
from pathlib import Path
from typing import Any

import polars as pl
import psycopg
import pyarrow as pa  # type: ignore[import-untyped] # it ships no type information
import pytest
from pyarrow import parquet as pq

from devstack.postgres import Postgres
from optaic.plugins import HeldTypes, PipelineContext, PluginError
from support.sources import allow_server, allowed
from support.web import Answer, serving
from worker.builtin.delta_store import DeltaStore
from worker.builtin.file_source import FilePipeline
from worker.builtin.parquet_store import ParquetStore
from worker.builtin.sql_source import SqlPipeline
from worker.builtin.typed_file_source import TypedFilePipeline
from worker.builtin.typed_sql_source import TypedSqlPipeline
from worker.failures import describe_error
from worker.guardrails import Guardrail, check_guardrails

CANARY = "k4n4rie"
TABLE = pl.DataFrame({"date": [dt.date(2024, 1, 2)], "entity": [CANARY], "note": [CANARY]})
BOTH_FILES = pytest.mark.parametrize("pipeline", [FilePipeline, TypedFilePipeline])
BOTH_DATABASES = pytest.mark.parametrize("pipeline", [SqlPipeline, TypedSqlPipeline])


def check_silent(act: Callable[[], object]) -> PluginError:
    """Return the error of an act, which says nothing of the canary."""
    with pytest.raises(PluginError) as refused:
        act()
    failure = describe_error(refused.value)
    shown = f"{failure.type} {failure.message} {failure.trace} {refused.value!r}".lower()
    assert CANARY not in shown
    assert CANARY.encode().hex() not in shown
    return refused.value


def _refuse(pipeline: type[FilePipeline | SqlPipeline], **config: object) -> PluginError:
    held = HeldTypes({"held": pl.Float64()})
    return check_silent(lambda: pipeline().run(PipelineContext(config=config, held=held)))


ENVIRONMENT = f"PATH=/bin\0OPTAIC_SERVICE_TOKEN={CANARY}\0HOME={CANARY}\0"
CSVS: list[tuple[str, bytes, dict[str, object]]] = [
    ("an environment", ENVIRONMENT.encode(), {}),
    ("one line", f"{CANARY}".encode(), {}),
    ("a file of passwords", f"{CANARY}:x:0:0:{CANARY}:/root:/bin/sh\nb:{CANARY}\n".encode(), {}),
    ("JSON", f'{{"{CANARY}": ["{CANARY}", 1]}}\n'.encode(), {}),
    ("a header without dates", f"a,{CANARY}\n1,2\n".encode(), {}),
    ("a column that is missing", f"date,{CANARY}\n2024-01-02,x\n".encode(), {"columns": {"date": "date", "x": "px"}}),
    ("dates that are none", f"date,entity\n{CANARY},a\n".encode(), {}),
    ("dates in another format", f"date,entity\n{CANARY},a\n".encode(), {"date_format": "%d.%m.%Y"}),
    ("rows of other lengths", f"date,entity\n2024-01-02,{CANARY},{CANARY}\n".encode(), {}),
    ("an open quote", f'date,entity\n2024-01-02,"{CANARY}\n'.encode(), {}),
    ("a quote within", f'date,entity\n2024-01-02,"{CANARY}"{CANARY}\n'.encode(), {}),
    ("another encoding", f"date,entity\n2024-01-02,{CANARY}".encode() + b"\xff\xfe\n", {}),
    ("UTF-16", f"date,entity\n2024-01-02,{CANARY}\n".encode("utf-16"), {}),
    ("names that differ in case", f"date,{CANARY},{CANARY.upper()}\n{CANARY},a,b\n".encode(), {}),
    ("a name with NUL", f"date,{CANARY}\0\n2024-01-02,a\n".encode(), {}),
    ("a pattern as a name", f"date,^{CANARY}$\n2024-01-02,a\n".encode(), {}),
    ("a long name", f"date,{CANARY * 300}\n2024-01-02,a\n".encode(), {}),
    ("no rows in the range", f"date,entity\n2024-01-02,{CANARY}\n".encode(), {"start": "2025-01-01"}),
    ("binary data", bytes(range(256)) + CANARY.encode(), {}),
    ("a Parquet file", b"PAR1" + CANARY.encode() + b"PAR1", {}),
]  # fmt: skip
TYPED: list[tuple[str, bytes, dict[str, object]]] = [
    *(
        (f"a value that is no {kind}", f"date,entity,x\n2024-01-02,a,{CANARY}\n".encode(), dict[str, object](types={"x": kind}))
        for kind in ("Int64", "Float64", "Boolean", "Date", "Datetime")
    ),
    ("a value of another type than before", f"date,entity,held\n2024-01-02,a,{CANARY}\n".encode(), {}),
    ("columns of one name", f"date,{CANARY},{CANARY}\n2024-01-02,a,b\n".encode(), {}),
    ("a type for no column", f"date,entity,{CANARY}\n2024-01-02,a,b\n".encode(), {"types": {"x": "Int64"}}),
]  # fmt: skip


@pytest.mark.parametrize(("content", "config"), [case[1:] for case in CSVS], ids=[case[0] for case in CSVS])
@BOTH_FILES
def test_a_malformed_text_file(
    tmp_path: Path, pipeline: type[FilePipeline], content: bytes, config: dict[str, object]
) -> None:
    place = tmp_path / "a.csv"
    place.write_bytes(content)
    _refuse(pipeline, url=str(place), **config)


@pytest.mark.parametrize(("content", "config"), [case[1:] for case in TYPED], ids=[case[0] for case in TYPED])
def test_a_value_that_does_not_fit(tmp_path: Path, content: bytes, config: dict[str, object]) -> None:
    place = tmp_path / "a.csv"
    place.write_bytes(content)
    refused = _refuse(TypedFilePipeline, url=str(place), **config)
    assert any(text in str(refused) for text in ("row 2", "types.x", "places 2, 3"))


def _parquet(table: pl.DataFrame | pa.Table) -> bytes:
    stream = io.BytesIO()
    pq.write_table(table if isinstance(table, pa.Table) else table.to_arrow(), stream, compression="none")
    return stream.getvalue()


def _malformed_parquet() -> dict[str, bytes]:
    whole = _parquet(TABLE)
    place = whole.index(CANARY.encode())
    zoned = pa.array([0], pa.timestamp("us", "+05:45"))
    days = pa.array([dt.date(2024, 1, 2)])
    return {
        "cut off": whole[: len(whole) // 2],
        "without its end": whole[:-8],
        "only its end": b"PAR1" + whole[-200:],
        "a changed page": whole[: place - 8] + b"\xff" * 8 + whole[place:],
        "changed bytes": bytes(byte ^ (0x55 if 20 < at < 60 else 0) for at, byte in enumerate(whole)),
        "a changed schema": whole.replace(b"note", b"no\xffe"),
        "text": f"{CANARY},{CANARY}\n".encode(),
        "without dates": _parquet(TABLE.rename({"date": CANARY})),
        "dates that are texts": _parquet(TABLE.with_columns(date=pl.lit(CANARY))),
        "dates that are lists": _parquet(TABLE.with_columns(date=pl.lit([CANARY]))),
        "a zone that is none": _parquet(pa.table({"date": days, "x": zoned, CANARY: pa.array([1])})),
    }


@pytest.mark.parametrize("case", _malformed_parquet())
@BOTH_FILES
def test_a_malformed_parquet_file(tmp_path: Path, pipeline: type[FilePipeline], case: str) -> None:
    content = _malformed_parquet()[case]
    (tmp_path / "a.parquet").write_bytes(content)
    try:
        _refuse(pipeline, url=str(tmp_path / "a.parquet"))
    except pytest.fail.Exception:
        assert case == "changed bytes", "a change that is not noticed in values"


@BOTH_FILES
def test_types_that_a_parquet_file_does_not_fit(tmp_path: Path, pipeline: type[FilePipeline]) -> None:
    if pipeline is TypedFilePipeline:
        for kind in ("Int64", "Float64", "Date", "Boolean"):
            (tmp_path / "a.parquet").write_bytes(_parquet(TABLE))
            _refuse(pipeline, url=str(tmp_path / "a.parquet"), types={"note": kind})


@pytest.mark.parametrize("compression", ["gzip", "bz2", "xz", "zip"])
def test_a_malformed_archive(tmp_path: Path, compression: str) -> None:
    many = io.BytesIO()
    with zipfile.ZipFile(many, "w") as archive:
        archive.writestr(CANARY, CANARY)
        archive.writestr(f"{CANARY}2", CANARY)
    for content in (CANARY.encode(), gzip.compress(CANARY.encode() * 9)[:-9], many.getvalue(), b""):
        (tmp_path / "a.csv").write_bytes(content)
        options = {"compression": compression}
        _refuse(FilePipeline, url=str(tmp_path / "a.csv"), storage_options=options)


@pytest.mark.parametrize(
    "answer",
    [
        Answer(CANARY.encode(), 500),
        Answer(CANARY.encode(), 404),
        Answer(status=302, headers={"Location": f"ftp://{CANARY}/x"}),
        Answer(status=302, headers={"Location": f"https://{CANARY}.example/{CANARY}"}),
        Answer(status=302, headers={"Location": f"http://[{CANARY}/"}),
        Answer(CANARY.encode(), headers={"Content-Encoding": CANARY}),
        Answer(CANARY.encode(), headers={"Content-Encoding": "gzip"}),
        Answer(CANARY.encode(), headers={"Content-Length": "7000"}),
        Answer(CANARY.encode(), headers={"Transfer-Encoding": "chunked"}),
    ],
)
def test_an_answer_of_a_server(answer: Answer) -> None:
    with serving(lambda _: answer) as server:
        place = [server.host]
        with allowed(private_hosts=place, http_hosts=place, total_seconds=5):
            _refuse(FilePipeline, url=f"{server.url}/a.csv")


@pytest.mark.parametrize(
    "query",
    [
        "select json_extract(note, '$') as date from px",
        "select json_extract('{}', note) as date from px",
        "select json(note) as date from px",
        "select note as date from px",
        "select abs(-9223372036854775808) as date, note from px",
        "select date, x'00' as y, note from px union all select date, note, note from px order by y",
        "select date, note as entity, '2' as note union select 1",
        "select * from px where note match note",
    ],
)
@BOTH_DATABASES
def test_a_query_of_sqlite_that_fails(tmp_path: Path, pipeline: type[SqlPipeline], query: str) -> None:
    with closing(sqlite3.connect(tmp_path / "w.db")) as connection, connection:
        connection.execute("create table px (date text, note text)")
        connection.executemany("insert into px values ('2024-01-02', ?)", [(CANARY,), (f"{CANARY}2",)])
    _refuse(pipeline, url=f"sqlite:///{tmp_path}/w.db", query=query)


@BOTH_DATABASES
def test_values_of_sqlite_that_do_not_go_together(tmp_path: Path, pipeline: type[SqlPipeline]) -> None:
    with closing(sqlite3.connect(tmp_path / "w.db")) as connection, connection:
        connection.execute("create table px (date, x)")
        connection.executemany("insert into px values (?, ?)", [("2024-01-02", b"a"), (CANARY, CANARY)])
    refused = _refuse(pipeline, url=f"sqlite:///{tmp_path}/w.db", table="px")
    assert "row 2 has a text" in str(refused)


def test_a_file_that_is_no_database(tmp_path: Path) -> None:
    (tmp_path / "w.db").write_text(CANARY * 1000)
    _refuse(SqlPipeline, url=f"sqlite:///{tmp_path}/w.db", table="px")


@pytest.mark.parametrize(
    "query",
    [
        "select note::int as date from canaries",
        "select note::date as date from canaries",
        "select note::json as date from canaries",
        "select note::uuid as date from canaries",
        "select ('{' || note)::int[] as date from canaries",
        "select 1 / 0 as date from canaries",
        "select regexp_replace(note, '(' || note, '') as date from canaries",
        "select set_config(note, 'x', false) as date from canaries",
        "select pg_read_file(note) as date from canaries",
        "select query_to_xml('select * from ' || note, true, true, '') as date from canaries",
        "select to_date(note, 'YYYY') as date from canaries",
        "select nextval('numbers') as date from canaries",
        "select lo_import(note) as date from canaries",
        "select note as date from canaries where note in (select note || 1 / 0 from canaries)",
    ],
)
def test_a_query_of_postgresql_that_fails(postgres_server: Postgres, query: str) -> None:
    with psycopg.connect(postgres_server.admin_url, autocommit=True) as connection:
        connection.execute("create table if not exists canaries (note text)")
        connection.execute("create sequence if not exists numbers")
        connection.execute("truncate canaries")
        connection.execute("insert into canaries values (%s)", [CANARY])
    login = postgres_server.admin_url.partition("://")[2].partition("@")[0]
    user, _, password = login.partition(":")
    url = f"postgresql+psycopg://{user}:${{OPTAIC_SECRET_P}}@{postgres_server.host}/postgres"
    with allow_server(postgres_server, OPTAIC_SECRET_P=password):
        refused = _refuse(SqlPipeline, url=url, query=query)
        assert refused.type in {"InvalidQuery", "UnparsableData", "SchemaMismatch"}, refused
        missing = _refuse(SqlPipeline, url=url, table="no_such_table")
        assert "'no_such_table'" in str(missing)
        assert "SQLSTATE 42P01" in str(missing)


@pytest.mark.parametrize("store", [DeltaStore, ParquetStore])
def test_a_table_that_a_store_does_not_keep(tmp_path: Path, store: type[Any]) -> None:
    days = [dt.date(2024, 1, 2)] * 2
    for table in (
        pl.DataFrame({"date": days, "entity": [CANARY] * 2}),
        pl.DataFrame({"date": days, "entity": [CANARY, "b"], "x": [{CANARY: 1}] * 2}),
        pl.DataFrame({CANARY: [CANARY]}),
    ):
        check_silent(lambda table=table: store({}).write(table, None, str(tmp_path / "data")))  # type: ignore[misc] # a default binds it


def test_a_guardrail_that_is_broken() -> None:
    table = TABLE.with_columns(
        value=pl.lit(Decimal(5)).cast(pl.Float64), knowledge_date=pl.lit(None, pl.Date)
    )
    for check, parameters in (
        ("signal_bounds", {"max": 1}),
        ("point_in_time", {}),
        ("required_columns", {"columns": ["x"]}),
    ):
        guardrail = Guardrail("mine", check, parameters, blocks=True)
        check_silent(
            lambda guardrail=guardrail: check_guardrails(table, [guardrail], dt.date(2024, 1, 2))  # type: ignore[misc] # a default binds it
        )
