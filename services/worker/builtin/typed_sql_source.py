"""The pipeline `sql` from version 1.2 on: columns may be given types, and no decimal loses a digit without a word."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import polars as pl

from optaic.plugins import InvalidConfig, PipelineContext
from worker.builtin.sql_source import SqlPipeline
from worker.builtin.typed.kinds import read_types
from worker.builtin.typed.tables import give_types


class TypedSqlPipeline(SqlPipeline):
    """As `SqlPipeline`; after a change of what is read, and in which types, the next refresh reads everything."""

    shaped_by = SqlPipeline.shaped_by | {"types"}

    def _starts_afresh(self, context: PipelineContext) -> bool:
        return context.is_reshaped

    def _choose(
        self,
        table: pl.DataFrame,
        context: PipelineContext,
        mapping: Mapping[str, str],
        dates: Sequence[str],
        source: str,
    ) -> pl.DataFrame:
        chosen = super()._choose(table, context, mapping, dates, source)
        types = read_types(context.config)
        cursor = context.config.get("cursor")
        if named := [name for name in types if cursor and mapping.get(name, name) == cursor]:
            raise InvalidConfig(f"types.{named[0]}: a cursor keeps the type that the source compares it by")
        return give_types(chosen, types, dates, context.config.get("date_format"), source, context.report)
