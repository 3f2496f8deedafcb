"""The pipeline `file` from version 1.2 on: each column has a type that is configured, pinned or unambiguous."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import polars as pl

from optaic.plugins import PipelineContext
from worker.builtin.csv_columns import ColumnTypes, type_columns
from worker.builtin.csv_text import CsvFormat, read_csv_text
from worker.builtin.file_source import FilePipeline, choose_parquet
from worker.builtin.typed.kinds import read_types
from worker.builtin.typed.tables import give_types
from worker.builtin.zones import to_zones


class TypedFilePipeline(FilePipeline):
    """A `FilePipeline` that pins the types of CSV columns: `types` sets them, or the first refresh guesses them."""

    shaped_by = FilePipeline.shaped_by | {
        "types",
        "null_values",
        "decimal",
        "thousands",
        "delimiter",
        "quote",
        "encoding",
        "skip_blank_lines",
    }

    def _read_csv(
        self,
        content: bytes,
        context: PipelineContext,
        mapping: Mapping[str, str],
        dates: Sequence[str],
        url: str,
    ) -> pl.DataFrame:
        rules = ColumnTypes.from_config(context.config, dates)
        text = read_csv_text(content, CsvFormat.from_config(context.config), mapping, url)
        table, report = type_columns(text, rules, context.held, url)
        report.add_to_metrics(context.report)
        if text.blank_lines:
            context.report("blank_lines_skipped", text.blank_lines)
        # An offset that a text says is no zone: it may be another in winter.
        return to_zones(table, {}, context.timezone)

    def _read_parquet(
        self,
        content: bytes,
        context: PipelineContext,
        mapping: Mapping[str, str],
        dates: Sequence[str],
        url: str,
    ) -> pl.DataFrame:
        table = choose_parquet(content, context.timezone, mapping, dates, url)
        date_format = context.config.get("date_format")
        return give_types(table, read_types(context.config), dates, date_format, url, context.report)
