"""The tokens of sources: another one after each change, without reading what is there."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Callable
from pathlib import Path

import polars as pl
import pytest

from optaic.plugins import Pipeline, PipelineContext, PluginError, SourceNotAllowed, SourceNotFound
from support.sources import allowed
from support.web import Answer, serving
from worker.builtin.file_source import FilePipeline
from worker.builtin.sql_source import SqlPipeline
from worker.builtin.typed_file_source import TypedFilePipeline
from worker.computing.probing import read_token


def probe(pipeline: Pipeline, **config: object) -> str:
    return read_token(pipeline, PipelineContext(config=config))


@pytest.mark.parametrize("make", [FilePipeline, TypedFilePipeline])
def test_a_file_that_is_written_again_has_another_token(
    tmp_path: Path, make: Callable[[], FilePipeline]
) -> None:
    path = tmp_path / "prices.csv"
    path.write_text("date,entity\n")
    first = probe(make(), url=str(path))
    assert first == probe(make(), url=path.as_uri())
    os.utime(path, ns=(1, 1))  # the same size
    later = probe(make(), url=str(path))
    path.write_text("date,entity\n2024-01-02,a\n")
    assert len({first, later, probe(make(), url=str(path))}) == 3


def test_a_probe_reads_only_what_the_policy_allows(tmp_path: Path) -> None:
    path = tmp_path / "prices.csv"
    with pytest.raises(SourceNotFound):
        probe(FilePipeline(), url=str(path))
    path.write_text("date,entity\n")
    with allowed(roots=()), pytest.raises(SourceNotAllowed):
        probe(FilePipeline(), url=str(path))
    with allowed(), pytest.raises(SourceNotAllowed):
        probe(FilePipeline(), url="https://127.0.0.1/prices.csv")


@pytest.mark.parametrize(
    ("headers", "token"),
    [
        ({"ETag": '"abc"', "Last-Modified": "yesterday"}, 'etag "abc"'),
        ({"Last-Modified": "yesterday"}, "modified yesterday size 3"),
        ({}, ""),
    ],
)
def test_a_file_of_the_web_is_asked_for_its_tag_and_not_read(headers: dict[str, str], token: str) -> None:
    with serving(lambda _: Answer(b"abc", headers=headers)) as web:
        with allowed(private_hosts=["127.0.0.1"], http_hosts=[web.host]):
            assert probe(FilePipeline(), url=f"{web.url}/prices.csv") == token
        assert [each.partition(" ")[0] for each in web.asked] == ["HEAD"]


def test_a_redirect_is_followed_by_the_same_question() -> None:
    def answer(path: str) -> Answer:
        moved = Answer(status=302, headers={"Location": "/there.csv"})
        return moved if path == "/prices.csv" else Answer(headers={"ETag": "b"})

    with serving(answer) as web, allowed(private_hosts=["127.0.0.1"], http_hosts=[web.host]):
        assert probe(FilePipeline(), url=f"{web.url}/prices.csv") == "etag b"
        assert [each.partition(" ")[0] for each in web.asked] == ["HEAD", "HEAD"]


def test_a_table_has_the_largest_value_of_its_cursor(tmp_path: Path) -> None:
    place = tmp_path / "prices.sqlite"
    url = f"sqlite:///{place}"
    with sqlite3.connect(place) as connection:
        connection.execute("create table prices (date text, entity text, number integer)")
    assert probe(SqlPipeline(), url=url, table="prices", cursor="number") == ""
    with sqlite3.connect(place) as connection:
        connection.execute("insert into prices values ('2024-01-02', 'a', 9), ('2024-01-02', 'b', 10)")
    assert probe(SqlPipeline(), url=url, table="prices", cursor="number") == "number 10"
    query = "select number as version from prices"
    assert probe(SqlPipeline(), url=url, query=query, cursor="version") == "version 10"
    assert probe(SqlPipeline(), url=url, table="prices") == ""
    with pytest.raises(PluginError, match="nothing"):
        probe(SqlPipeline(), url=url, table="prices", cursor="nothing")


@pytest.mark.parametrize("token", [None, 3, "x" * 1_001, "two\nlines"])
def test_what_is_no_token_is_refused(token: object) -> None:
    class Odd(Pipeline):
        def run(self, context: PipelineContext) -> pl.DataFrame:
            raise NotImplementedError

        def probe(self, context: PipelineContext) -> str:
            del context
            return token  # type: ignore[return-value]  # as a plugin may

    with pytest.raises(PluginError, match="1000"):
        probe(Odd())
