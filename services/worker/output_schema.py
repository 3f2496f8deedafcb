"""Compare a table with the `output_schema` of its pipeline's definition: columns and types, not values."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import polars as pl

from optaic.plugins import SchemaMismatch
from optaic.plugins.words import describe_columns, describe_type

_TEXTS = (pl.String, pl.Categorical, pl.Enum)
_TIMES = (pl.Date, pl.Datetime, pl.Time)
# The types of columns that hold what JSON Schema calls by these names; dates are texts in JSON.
_TYPES: Mapping[str, Callable[[pl.DataType], bool]] = {
    "string": lambda kind: isinstance(kind, (*_TEXTS, *_TIMES)),
    "number": lambda kind: kind.is_numeric(),
    "integer": lambda kind: kind.is_integer(),
    "boolean": lambda kind: kind == pl.Boolean,
    "array": lambda kind: isinstance(kind, (pl.List, pl.Array)),
    "object": lambda kind: isinstance(kind, pl.Struct),
    "null": lambda _: False,  # a column of nothing else fits every type
}
_FORMATS: Mapping[str, type[pl.DataType]] = {"date": pl.Date, "date-time": pl.Datetime}


def check_output(table: pl.DataFrame, schema: Mapping[str, Any]) -> None:
    """Check a table's columns and their types against the schema of a row; the values are not checked.

    Raises:
        SchemaMismatch: naming every column that is absent, of another type, or not known.
    """
    if problems := list(_column_problems(table.schema, schema)):
        raise SchemaMismatch(f"the table does not match `output_schema`: {'; '.join(problems)}")


def _column_problems(columns: Mapping[str, pl.DataType], schema: Mapping[str, Any]) -> Iterator[str]:
    properties = schema.get("properties", {})
    for name in schema.get("required", ()):
        if name not in columns:
            yield f"column {name!r} is missing; the table has {describe_columns(columns)}"
    for place, (name, kind) in enumerate(columns.items(), 1):
        if name in properties:
            if not _fits(kind, properties[name]):
                yield f"column {name!r} is {describe_type(kind)}"
        elif schema.get("additionalProperties") is False and not schema.get("patternProperties"):
            yield f"column {place} is not in the schema"


def _fits(kind: pl.DataType, described: Mapping[str, Any] | bool) -> bool:
    if isinstance(described, bool) or "type" not in described or kind == pl.Null:
        return described is not False
    given = described["type"]
    names = [given] if isinstance(given, str) else given
    if "string" in names and described.get("format") in _FORMATS:
        others = [name for name in names if name != "string"]
        wanted = _FORMATS[described["format"]]
        return isinstance(kind, wanted) or any(_TYPES[name](kind) for name in others)
    return any(_TYPES[name](kind) for name in names)
