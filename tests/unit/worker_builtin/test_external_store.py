"""The store `external`: it reads what another system writes, where the policy allows it, and writes and removes nothing."""

import datetime as dt
from pathlib import Path

import polars as pl
import pytest

from optaic.plugins import (
    InvalidConfig,
    PipelineContext,
    PluginError,
    SourceNotAllowed,
    SourceNotFound,
    StoreRefused,
    UnparsableData,
)
from support.sources import allowed
from worker.builtin.external_store import ExternalFileStore, ExternalPipeline

DAYS = [dt.date(2024, 1, 3), dt.date(2024, 1, 2)]
TABLE = pl.DataFrame({"date": DAYS, "entity": ["a", "a"], "close": [2.0, 1.0]})


def test_rows_come_sorted_from_the_file_as_it_is_now(tmp_path: Path) -> None:
    path = tmp_path / "prices.parquet"
    store = ExternalFileStore({"url": str(path)})
    with allowed():
        for table in (TABLE, TABLE.head(1)):
            table.write_parquet(path)
            assert store.read("file:///elsewhere", "any").equals(table.sort("date"))


def test_each_version_is_a_file_of_its_own_where_the_url_says_so(tmp_path: Path) -> None:
    store = ExternalFileStore({"url": str(tmp_path / "prices-{version}.parquet")})
    for name, table in (("v1", TABLE.head(1)), ("v2", TABLE)):
        table.write_parquet(tmp_path / f"prices-{name}.parquet")
    with allowed():
        assert store.read("", "v1").height == 1
        assert store.read("", "v2").height == 2
        with pytest.raises(SourceNotFound):
            store.read("", "v3")


@pytest.mark.parametrize("version", ["../secret", "a/../../secret", "..%2fsecret"])
def test_no_version_leads_out_of_what_the_worker_may_read(tmp_path: Path, version: str) -> None:
    folder = tmp_path / "exports"
    folder.mkdir()
    TABLE.write_parquet(tmp_path / "secret.parquet")
    store = ExternalFileStore({"url": f"{folder}/{{version}}.parquet"})
    with allowed(roots=[str(folder)]), pytest.raises((SourceNotAllowed, SourceNotFound)):
        store.read("", version)


@pytest.mark.parametrize(
    ("url", "version"),
    [
        ("https://{version}/a.parquet", "evil.example"),
        ("https://{version}.example.com/a.parquet", "evil"),
        ("https://user:{version}@a.example/b.parquet", "x@evil.example"),
        ("https://a.example:{version}/b.parquet", "1"),
        ("s3://{version}/a.parquet", "bucket"),
        ("{version}//evil.example/a.parquet", "https:"),
        ("http{version}://a.example/b.parquet", "s"),
    ],
)
def test_no_version_chooses_the_host_or_the_scheme(url: str, version: str) -> None:
    with allowed(), pytest.raises(InvalidConfig, match=r"url: \{version\} must stand in the path"):
        ExternalFileStore({"url": url}).read("", version)


def test_a_link_in_the_folder_leads_nowhere_else(tmp_path: Path) -> None:
    folder = tmp_path / "exports"
    folder.mkdir()
    TABLE.write_parquet(tmp_path / "secret.parquet")
    (folder / "v1.parquet").symlink_to(tmp_path / "secret.parquet")
    store = ExternalFileStore({"url": f"{folder}/{{version}}.parquet"})
    with allowed(roots=[str(folder)]), pytest.raises(SourceNotAllowed):
        store.read("", "v1")


def test_what_is_no_parquet_file_is_refused_without_its_content(tmp_path: Path) -> None:
    path = tmp_path / "prices.parquet"
    path.write_text("top secret")
    with allowed(), pytest.raises(UnparsableData) as caught:
        ExternalFileStore({"url": str(path)}).read("", "v1")
    assert "top secret" not in str(caught.value)


def test_nothing_is_written_or_removed(tmp_path: Path) -> None:
    path = tmp_path / "prices.parquet"
    TABLE.write_parquet(path)
    store = ExternalFileStore({"url": str(path)})
    with pytest.raises(StoreRefused):
        store.write(TABLE, None, str(path))
    store.remove(str(path))
    assert pl.read_parquet(path).equals(TABLE)


def test_the_pipeline_says_what_to_do_instead() -> None:
    with pytest.raises(PluginError, match="optaic run report") as caught:
        ExternalPipeline().run(PipelineContext({}))
    assert caught.value.type == "FlowExternal"
