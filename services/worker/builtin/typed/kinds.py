"""The types that a column may have, by name; no values."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import polars as pl

from optaic.plugins import InvalidConfig
from optaic.plugins.words import describe_value
from optaic.rules.columns import ENTITY
from worker.builtin.parameters import Config, read_section

# Named as metrics and profiles name them; the other words mean the same.
_KINDS: Mapping[str, pl.DataType] = {
    "Int64": pl.Int64(),
    "Float64": pl.Float64(),
    "String": pl.String(),
    "Boolean": pl.Boolean(),
    "Date": pl.Date(),
    "Datetime": pl.Datetime("us"),
}
_OTHER_WORDS = {
    "integer": "Int64",
    "int": "Int64",
    "number": "Float64",
    "float": "Float64",
    "double": "Float64",
    "text": "String",
    "bool": "Boolean",
    "date-time": "Datetime",
    "timestamp": "Datetime",
    "int64": "Int64",
    "float64": "Float64",
    "string": "String",
    "boolean": "Boolean",
    "date": "Date",
    "datetime": "Datetime",
}
WORDS = (*_KINDS, *_OTHER_WORDS)
DEFAULT = pl.Float64()  # the type of a column without any value yet


def read_types(config: Config) -> Mapping[str, pl.DataType]:
    """Read `types`: the types of the result's columns that the configuration sets.

    Raises:
        InvalidConfig: one is not known, or an entity is to be no text.
    """
    types = {}
    for name, word in read_section(config, "types").items():
        known = _OTHER_WORDS.get(word, word) if isinstance(word, str) else ""
        if known not in _KINDS:
            raise InvalidConfig(
                f"types.{name}: must be one of {', '.join(_KINDS)}, not {describe_value(word)}"
            )
        types[name] = _KINDS[known]
    if types.get(ENTITY, pl.String()) != pl.String():
        raise InvalidConfig("types.entity: must be String, because entities are texts; or leave it out")
    return types


def check_dates(types: Mapping[str, pl.DataType], dates: Sequence[str]) -> None:
    """Refuse another type for a column of dates; `String` says that they are written as texts, which makes no difference.

    Raises:
        InvalidConfig: naming the column.
    """
    for name in dates:
        if types.get(name, pl.Date()) not in {pl.Date(), pl.String()}:
            raise InvalidConfig(
                f"types.{name}: must be Date, because the column is listed in `dates`; or String if `date_format` gives its format"
            )


def storage_type(kind: pl.DataType) -> pl.DataType | None:
    """Return the type in which a store keeps a type; None if no store can keep it."""
    if kind.is_integer():
        return pl.Int64()
    if kind.is_float():
        return pl.Float64()
    if isinstance(kind, (pl.String, pl.Categorical, pl.Enum)):
        return pl.String()
    if isinstance(kind, pl.Datetime):
        return pl.Datetime("us", None if kind.time_zone is None else "UTC")
    return kind if isinstance(kind, (pl.Boolean, pl.Date, pl.Null)) else None


def declared_types(schema: Mapping[str, object]) -> Mapping[str, pl.DataType]:
    """Return what the schema of a row says of its columns' types, where that is one type."""
    found = {}
    properties = schema.get("properties")
    for name, described in properties.items() if isinstance(properties, Mapping) else ():
        given = described.get("type") if isinstance(described, Mapping) else None
        words = [word for word in ([given] if isinstance(given, str) else given or []) if word != "null"]
        if len(words) == 1:
            word = described["format"] if words[0] == "string" and "format" in described else words[0]
            word = _OTHER_WORDS.get(word, "String" if words[0] == "string" else "")
            if word:
                found[name] = _KINDS[word]
    return found
