"""The pipeline `file`: one Parquet or CSV file by its URL, as far as the worker's policy allows; it writes nothing."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence

import polars as pl

from optaic.plugins import (
    InvalidConfig,
    Pipeline,
    PipelineContext,
)
from optaic.plugins.words import describe_type
from optaic.rules.columns import DATE, ENTITY
from worker.builtin.column_names import check_source_names
from worker.builtin.parameters import Config, read_choice, read_section, read_text
from worker.builtin.parquet_file import read_parquet
from worker.builtin.tidy import check_columns, choose, cut, read_date_columns, read_mapping, read_range, tidy
from worker.builtin.typed.casting import find_lost_digits
from worker.builtin.typed.judging import find_alteration
from worker.builtin.typed.refusals import shorten
from worker.sources import access
from worker.sources.content import without_content
from worker.sources.reading import probe_source, read_source

_SUFFIXES = {".parquet": "parquet", ".pq": "parquet", ".csv": "csv"}


class FilePipeline(Pipeline):
    """The rows of `url` from `start` to `end`, none later than `as_of`, under the names that `columns` gives.

    The type of a CSV file's column is guessed at each refresh. A guess that would alter a value is not made, but where
    the version before holds such numbers already: then it is reported, until a full refresh.
    """

    shaped_by = frozenset({"format", "separator", "columns", "dates", "date_format"})

    def run(self, context: PipelineContext) -> pl.DataFrame:
        """Read one row for each row of the file.

        Raises:
            InvalidConfig: a parameter is malformed.
            SourceNotAllowed: the worker's policy does not allow the file, or a secret to be sent there.
            SourceNotFound: there is no such file.
            SourceUnavailable: it cannot be read.
            SchemaMismatch: a column is missing.
            UnparsableData: it is no such file, or a date is none.
            NoDataInRange: nothing lies in the range.
        """
        config = context.config
        url = read_text(config, "url")  # as configured: what messages show
        mapping, dates = read_mapping(config), read_date_columns(config)
        file_format = _choose_format(config, url)
        context.progress(0.1, f"reading {url}")
        content = read_source(access.current(), url, read_section(config, "storage_options"))
        context.progress(0.5, f"parsing {len(content)} bytes")
        read = self._read_parquet if file_format == "parquet" else self._read_csv
        with without_content(f"{url} is not a readable {file_format} file; check the file, or set `format`"):
            table = read(content, context, mapping, dates, url)
            table = _tidy(table, config, dates, url)
        bounds = read_range(config, context.date_range)
        if bounds.start or bounds.end:
            check_columns([DATE], table.columns, url)
        table = cut(table, bounds, url)
        context.progress(1.0, f"{table.height} rows")
        return table

    def probe(self, context: PipelineContext) -> str:
        """Return the size and time of a local file, or the ETag of a file of the web or of S3; raises as `run`."""
        config = context.config
        return probe_source(
            access.current(), read_text(config, "url"), read_section(config, "storage_options")
        )

    def _read_parquet(
        self,
        content: bytes,
        context: PipelineContext,
        mapping: Mapping[str, str],
        dates: Sequence[str],
        url: str,
    ) -> pl.DataFrame:
        table = choose_parquet(content, context.timezone, mapping, dates, url)
        if lost := find_lost_digits(table):
            context.report("altered_by_numbers", shorten(lost))
        return table

    def _read_csv(
        self,
        content: bytes,
        context: PipelineContext,
        mapping: Mapping[str, str],
        dates: Sequence[str],
        url: str,
    ) -> pl.DataFrame:
        separator = read_text(context.config, "separator", ",")
        guessed, texts = (
            choose(table, mapping, url) for table in _read_csv(content, separator, mapping, dates, url)
        )
        kept, altered = {}, {}
        for name, kind in guessed.schema.items():
            was = context.held.types.get(name)
            if was is not None and texts[name].null_count() == texts.height:  # a guess of no value is none
                guessed = guessed.with_columns(pl.lit(None).alias(name))
                continue
            why = find_alteration(texts[name]) if kind.is_numeric() else ""
            held = None if context.may_reshape else was
            if held == pl.String() != kind and name not in context.held.empty:
                why = (
                    why
                    or f"it was text before and is {describe_type(kind)} now; refresh in mode FULL to accept the new type"
                )
            if why and held is not None and held.is_numeric():
                altered[name] = f"{why}; refresh in mode FULL to keep the texts"
            elif why:
                guessed = guessed.with_columns(texts[name])
                kept[name] = why
        for metric, found in (("kept_as_text", kept), ("altered_by_numbers", altered)):
            if found:
                context.report(metric, shorten(found))
        return guessed


def choose_parquet(
    content: bytes, timezone: str, mapping: Mapping[str, str], dates: Sequence[str], url: str
) -> pl.DataFrame:
    """Return the columns that are wanted of a Parquet file, as they are there."""
    days = [mapping.get(name, name) for name in dates]
    most = access.current().policy.max_bytes
    table = read_parquet(content, timezone, list(mapping.values()), days, url, most=most)
    return choose(table, mapping, url)


def _choose_format(config: Config, url: str) -> str:
    ending = next((name for suffix, name in _SUFFIXES.items() if url.lower().endswith(suffix)), "")
    if not ending and not config.get("format"):
        raise InvalidConfig(f"format: the ending of {url} does not show the format; set it to parquet or csv")
    return read_choice(config, "format", ("parquet", "csv"), ending)


def _tidy(table: pl.DataFrame, config: Config, dates: Sequence[str], url: str) -> pl.DataFrame:
    date_format = config.get("date_format")
    formats = read_section(config, "date_format") if isinstance(date_format, Mapping) else {}
    texts = {name: str(text) for name, text in formats.items()}
    return tidy(table, dates, texts if formats else str(date_format or ""), url)


def _read_csv(
    content: bytes, separator: str, mapping: Mapping[str, str], dates: Sequence[str], url: str
) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Read a CSV file twice: with guessed types, and as texts. Names and dates stay text: `0700` is no number."""
    header = pl.read_csv(io.BytesIO(content), separator=separator, n_rows=0).columns
    check_columns(list(mapping.values()), header, url)
    names = {mapping.get(name, name) for name in (ENTITY, *dates)}
    columns = list(dict.fromkeys(mapping.values())) or None
    check_source_names(columns or header)
    guessed = pl.read_csv(
        io.BytesIO(content),
        separator=separator,
        columns=columns,
        schema_overrides={name: pl.String for name in header if name in names},
        infer_schema_length=None,
        try_parse_dates=False,
    )
    texts = pl.read_csv(io.BytesIO(content), separator=separator, columns=columns, infer_schema=False)
    return guessed, texts
