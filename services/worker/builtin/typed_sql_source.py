"""The pipeline `sql` from version 1.2 on: columns may have configured types, and no decimal loses a digit silently."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import polars as pl

from optaic.plugins import InvalidConfig, PipelineContext, UnparsableData
from worker.builtin.sql_rows import Mixture
from worker.builtin.sql_source import SqlPipeline, report_types
from worker.builtin.tidy import read_mapping
from worker.builtin.typed.kinds import read_types
from worker.builtin.typed.tables import give_types


class TypedSqlPipeline(SqlPipeline):
    """A `SqlPipeline` with types; after a change of its columns or types the next refresh reads everything."""

    shaped_by = SqlPipeline.shaped_by | {"types"}

    def _starts_afresh(self, context: PipelineContext) -> bool:
        return context.is_reshaped

    def _type(
        self,
        table: pl.DataFrame,
        mixtures: Mapping[str, Mixture],
        context: PipelineContext,
        dates: Sequence[str],
        source: str,
    ) -> pl.DataFrame:
        """Return the type that `types` sets.

        Raises:
            InvalidConfig: `types` does not go with the columns, or with the cursor.
            UnparsableData: a value does not fit its type, or would be altered by the one that the others have.
        """
        mapping, types = read_mapping(context.config), read_types(context.config)
        cursor = context.config.get("cursor")
        if named := [name for name in types if cursor and mapping.get(name, name) == cursor]:
            raise InvalidConfig(
                f"types.{named[0]}: must not name the cursor column; it keeps the type that the source sorts by"
            )
        for name, mixture in mixtures.items():
            if mixture.altered and types.get(name) != pl.String():
                raise UnparsableData(
                    f"{source}: column {name!r}: {mixture.places}, and the value in row {mixture.altered_row} would be another number as Float64. "
                    "Give the column the type String in `types` to keep all digits, or cast it in a query"
                )
            if mixture.texts is not None:
                table = table.with_columns(mixture.texts.alias(name))
        report_types(table, {name: found for name, found in mixtures.items() if name not in types}, context)
        return give_types(table, types, dates, context.config.get("date_format"), source, context.report)
