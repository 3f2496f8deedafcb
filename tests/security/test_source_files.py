"""The pipelines `file` and `sql` read local files below the folders of the policy only, however a path is written."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from optaic.plugins import PipelineContext, PluginError, SourceNotAllowed
from support.sources import allowed
from worker.builtin.file_source import FilePipeline
from worker.builtin.sql_source import SqlPipeline
from worker.builtin.typed_file_source import TypedFilePipeline
from worker.builtin.typed_sql_source import TypedSqlPipeline

CANARY = "k4n4rie-Zx81"
FILES = [FilePipeline, TypedFilePipeline]
DATABASES = [SqlPipeline, TypedSqlPipeline]

# {out}: a folder outside with the file secret.csv; {root}: the allowed folder, with links into the other one.
SPELLINGS = [
    "/proc/self/environ", "file:///proc/self/environ", "local:///proc/self/environ", "FILE:///proc/self/environ",
    "file:/proc/self/environ", "//proc/self/environ", "/proc/./self/environ", "/proc/self/../self/environ",
    "/proc/thread-self/environ", "/proc/1/environ", "/proc/self/root/proc/self/environ", "/proc/self/cwd/../etc/passwd",
    "/proc/self/fd/0", "/proc/self/maps", "/proc/self/mem", "/proc/self/root{out}/secret.csv", "/dev/fd/0", "/dev/stdin",
    "/dev/zero", "/dev/mem", "/dev/null", "/sys/kernel/notes", "/run/secrets/token", "/var/run/secrets/token",
    "/etc/passwd", "/etc/shadow", "~root/.ssh/id_rsa", "~/.ssh/id_rsa", "~/.bashrc", "{out}/secret.csv",
    "file://{out}/secret.csv", "{root}/../out/secret.csv", "{root}/x/../../out/secret.csv", "{root}/./../out/secret.csv",
    "file://{root}/../out/secret.csv", "{root}//..//out//secret.csv", "{root}/link.csv", "{root}/links/secret.csv",
    "{root}/chain.csv", "{root}/up/out/secret.csv", "{root}/proc/self/environ", "{root}/self.csv", "{root}/hard.csv",
    "{root}/pipe.csv", "{root}/.hidden/a.csv", "{root}/.env", "{root}-other/a.csv", "{root}/state/token", ".", "..",
    "simplecache::{out}/secret.csv", "filecache::file://{out}/secret.csv", "blockcache::/etc/passwd", "zip://a::{out}/a.zip",
    "reference://x", "memory://x.csv", "dir::file:///etc", "tar://a::file:///etc/a.tar", "cached://{out}/secret.csv",
    "ftp://127.0.0.1/a", "sftp://127.0.0.1/a", "ssh://127.0.0.1/a", "smb://127.0.0.1/a", "git:///x", "github://a:b@c/d",
    "hdfs://127.0.0.1/a", "webhdfs://127.0.0.1/a", "arrow_hdfs://127.0.0.1/a", "dask://x", "jupyter://127.0.0.1/a", "gs://a/b",
    "gcs://a/b", "abfs://a/b", "adl://a/b", "oci://a/b", "oss://a/b", "dbfs://a/b", "libarchive://a", "data:text/csv,a,b",
    "data://text/csv,a", "http+unix://%2Fvar%2Frun%2Fdocker.sock/a", "javascript:x", "generic://x", "root://127.0.0.1//a",
    "%66ile:///etc/passwd", " file:///etc/passwd", "file:///etc/passwd%00.csv", "file:///etc/passwd\0.csv", "fi\nle:///etc/passwd",
    "box://x", "dropbox://x", "gdrive://x", "lakefs://x", "wandb://x", "hf://x", "s3a://bucket/key", "az://x", "asynclocal:///etc/passwd",
]  # fmt: skip


@pytest.fixture
def root(tmp_path: Path) -> Iterator[Path]:
    """Make the allowed folder, with every kind of way out of it."""
    root, out = tmp_path / "root", tmp_path / "out"
    for folder in (root, out, root / ".hidden", root / "state", tmp_path / "root-other"):
        folder.mkdir()
    text = f"date,entity,{CANARY}\n2024-01-02,{CANARY},{CANARY}\n"
    for place in (
        out / "secret.csv",
        root / ".hidden" / "a.csv",
        root / ".env",
        tmp_path / "root-other" / "a.csv",
        root / "state" / "token",
    ):
        place.write_text(text)
    (root / "link.csv").symlink_to(out / "secret.csv")
    (root / "links").symlink_to(out)
    (root / "chain.csv").symlink_to(root / "links" / "secret.csv")
    (root / "up").symlink_to("..")
    (root / "proc").symlink_to("/proc")
    (root / "self.csv").symlink_to("/proc/self/environ")
    (root / "hard.csv").hardlink_to(out / "secret.csv")
    os.mkfifo(root / "pipe.csv")
    with allowed(roots=[str(root)], excluded=[str(root / "state")]):
        yield root


def _refusal(pipeline: type[FilePipeline | SqlPipeline], **config: object) -> PluginError:
    with pytest.raises(PluginError) as refused:
        pipeline().run(PipelineContext(config=config))
    text = str(refused.value)
    assert CANARY not in text
    assert "root:" not in text
    assert refused.value.__suppress_context__ or refused.value.__context__ is None
    return refused.value


@pytest.mark.parametrize("spelling", SPELLINGS)
@pytest.mark.parametrize("pipeline", FILES)
def test_a_file_outside_is_refused_however_it_is_written(
    root: Path, spelling: str, pipeline: type[FilePipeline], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPTAIC_SERVICE_TOKEN", CANARY)
    url = spelling.format(root=root, out=root.parent / "out")
    refused = _refusal(pipeline, url=url, format="csv")
    assert isinstance(refused, SourceNotAllowed), refused
    assert "url: " in str(refused)


@pytest.mark.parametrize(
    ("name", "rule"),
    [
        ("../out/secret.csv", "OPTAIC_SOURCE_ROOTS"),
        ("../out/no such file.csv", "OPTAIC_SOURCE_ROOTS"),
        ("hard.csv", "2 hard links"),
        ("pipe.csv", "not an ordinary file"),
        (".env", "hidden"),
        ("state/token", "OPTAIC_SOURCE_EXCLUDED"),
        ("self.csv", "belongs to the system"),
    ],
)
def test_the_refusal_names_the_field_the_rule_and_the_setting(root: Path, name: str, rule: str) -> None:
    text = str(_refusal(FilePipeline, url=str(root / name), format="csv"))
    assert text.startswith("url: ")
    assert rule in text


def test_what_lies_below_a_folder_is_read_also_by_a_link_that_stays_there(root: Path) -> None:
    (root / "a.csv").write_text("date,entity\n2024-01-02,a\n")
    (root / "b.csv").symlink_to("a.csv")
    for url in (root / "a.csv", root / "b.csv", root / "x" / ".." / "a.csv", (root / "a.csv").as_uri()):
        assert TypedFilePipeline().run(PipelineContext(config={"url": str(url)})).height == 1


def test_a_file_that_is_exchanged_for_a_link_after_the_check_is_not_read(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    victim = root / "a.csv"
    victim.write_text("date,entity\n2024-01-02,a\n")
    real_open = os.open

    def exchange(path: object, *args: int, **options: int) -> int:
        if str(path) == str(victim):
            victim.unlink()
            victim.symlink_to(root.parent / "out" / "secret.csv")
        return real_open(path, *args, **options)  # type: ignore[arg-type] # as it was called

    monkeypatch.setattr(os, "open", exchange)
    _refusal(FilePipeline, url=str(victim))


def test_a_folder_that_is_exchanged_for_a_link_after_the_check_is_not_read(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = root / "inner"
    folder.mkdir()
    (folder / "secret.csv").write_text("date,entity\n2024-01-02,a\n")
    real_open = os.open

    def exchange(path: object, *args: int, **options: int) -> int:
        if str(path) == str(folder / "secret.csv"):
            folder.rename(root / "moved")
            folder.symlink_to(root.parent / "out")
        return real_open(path, *args, **options)  # type: ignore[arg-type] # as it was called

    monkeypatch.setattr(os, "open", exchange)
    assert isinstance(_refusal(FilePipeline, url=str(folder / "secret.csv")), SourceNotAllowed)


def test_without_a_policy_no_local_file_is_read(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("date,entity\n2024-01-02,a\n")
    with allowed(roots=[]):
        assert "OPTAIC_SOURCE_ROOTS" in str(_refusal(FilePipeline, url=str(tmp_path / "a.csv")))


@pytest.mark.parametrize(
    "options",
    [
        {"cache_storage": "{root}/cache"},
        {"target_protocol": "http"},
        {"target_options": {"x": 1}},
        {"fo": "/etc/passwd"},
        {"auto_mkdir": True},
        {"protocol": "simplecache"},
        {"client_kwargs": {"proxy": "http://evil"}},
        {"endpoint_url": "http://169.254.169.254"},
        {"same_names": True},
    ],
)
@pytest.mark.parametrize("pipeline", FILES)
def test_an_option_that_is_not_named_is_refused_and_writes_nothing(
    root: Path, options: dict[str, object], pipeline: type[FilePipeline]
) -> None:
    (root / "a.csv").write_text("date,entity\n2024-01-02,a\n")
    given = {
        name: value.format(root=root) if isinstance(value, str) else value for name, value in options.items()
    }
    before = sorted(root.iterdir())
    refused = _refusal(pipeline, url=str(root / "a.csv"), storage_options=given)
    assert isinstance(refused, SourceNotAllowed)
    assert f"storage_options.{next(iter(options))}" in str(refused)
    assert sorted(root.iterdir()) == before


@pytest.mark.parametrize(
    "url",
    [
        "sqlite:///{out}/new.db", "sqlite:////{out}/new.db", "sqlite:///{root}/../out/new.db", "sqlite:///{root}/links/w.db",
        "sqlite:///{root}/link.db", "sqlite:///file:{out}/w.db?uri=true", "sqlite:///file:{root}/w.db?mode=rwc&uri=true",
        "sqlite:///{root}/w.db?mode=rwc", "sqlite:///{root}/w.db?vfs=unix-none", "sqlite://", "sqlite:///:memory:", "sqlite:////proc/self/mem",
        "sqlite+pysqlcipher:///{root}/w.db", "sqlite+aiosqlite:///{root}/w.db", "duckdb:///{root}/w.duckdb", "duckdb:///:memory:",
        "access:///x", "mysql+pymysql://u@localhost/x?unix_socket=/tmp/s", "mysql://u@localhost/x?read_default_file=/etc/my.cnf",
        "postgresql+psycopg://u@/x?host=/var/run/postgresql", "postgresql+psycopg:///x", "postgresql+psycopg://u@%2Ftmp/x",
        "postgresql+psycopg://u@db.example/x?host=127.0.0.1", "postgresql+psycopg://u@db.example/x?hostaddr=127.0.0.1",
        "postgresql+psycopg://u@db.example/x?service=evil", "postgresql+psycopg://u@db.example/x?passfile=/etc/shadow",
        "postgresql+psycopg://u@db.example/x?sslkey=/etc/shadow", "postgresql+psycopg://u@db.example/x?sslrootcert=/etc/shadow",
        "postgresql+psycopg://u@db.example/x?options=-c%20default_transaction_read_only%3Doff", "postgresql+asyncpg://u@db.example/x",
        "postgresql+psycopg://u@db.example/x?plugin=evil", "shillelagh://", "csvdb:////etc", "drill://127.0.0.1/x", "gsheets://",
        "postgresql+psycopg://u@a.example,127.0.0.1/x",
    ],
)  # fmt: skip
@pytest.mark.parametrize("pipeline", DATABASES)
def test_a_database_that_is_not_allowed_is_refused_and_nothing_is_created(
    root: Path, url: str, pipeline: type[SqlPipeline]
) -> None:
    out = root.parent / "out"
    for place in (out / "w.db", root / "w.db"):
        _make_database(place)
    (root / "link.db").symlink_to(out / "w.db")
    before = sorted((*root.iterdir(), *out.iterdir()))
    refused = _refusal(pipeline, url=url.format(root=root, out=out), table="px")
    assert refused.type in {"SourceNotAllowed", "InvalidConfig"}, refused
    assert sorted((*root.iterdir(), *out.iterdir())) == before


def _make_database(place: Path) -> None:
    with closing(sqlite3.connect(place)) as connection, connection:
        connection.execute("create table px (date text, entity text)")
        connection.execute("insert into px values ('2024-01-02', 'a')")


@pytest.mark.parametrize("journal", ["delete", "wal"])
def test_a_database_below_a_folder_is_read_and_nothing_is_created_beside_it(root: Path, journal: str) -> None:
    _make_database(root / "w.db")
    with closing(sqlite3.connect(root / "w.db")) as connection:
        connection.execute(f"pragma journal_mode = {journal}")
    before = sorted(root.iterdir())
    config = {"url": f"sqlite:///{root}/w.db", "table": "px"}
    assert TypedSqlPipeline().run(PipelineContext(config=config)).height == 1
    assert sorted(root.iterdir()) == before


@pytest.mark.parametrize(
    "query",
    [
        "select load_extension('/tmp/x.so') as date",
        "select * from pragma_database_list",
        "select writefile('/tmp/x', 'y') as date",
        "select readfile('/etc/passwd') as date",
        "select edit('x') as date",
        "attach database '/tmp/x.db' as x",
        "insert into px values ('2024-01-03', 'b')",
        "select 1) ; attach database '{root}/y.db' as y; select (2",
        "vacuum into '{root}/copy.db'",
        "select fts3_tokenizer('simple') as date",
    ],
)
def test_a_query_of_sqlite_reads_this_database_and_does_nothing_else(root: Path, query: str) -> None:
    _make_database(root / "w.db")
    before = {place: place.stat().st_mtime_ns for place in root.iterdir() if place.is_file()}
    refused = _refusal(SqlPipeline, url=f"sqlite:///{root}/w.db", query=query.format(root=root))
    assert refused.type in {"InvalidQuery", "SourceUnavailable"}
    assert {place: place.stat().st_mtime_ns for place in root.iterdir() if place.is_file()} == before
