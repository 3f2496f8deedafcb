"""Give the columns of a CSV file their types: configured, pinned, or determined from all rows; fetches nothing."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import polars as pl

from optaic.plugins import HeldTypes, InvalidConfig
from optaic.plugins.words import describe_columns, describe_type, describe_value
from optaic.rules.columns import ENTITY
from worker.builtin.csv_text import CsvText
from worker.builtin.parameters import Config
from worker.builtin.typed import times
from worker.builtin.typed.judging import Misfit, fit, judge
from worker.builtin.typed.kinds import check_dates, read_types
from worker.builtin.typed.numbers import NumberFormat
from worker.builtin.typed.refusals import misfit_error, shorten

_GIVEN = "Correct the file, name the value in `null_values`, or give the column another type in `types`."
_HELD = (
    "An earlier refresh has pinned its type. Correct the file, name the value in `null_values`, give `types`, or "
    "refresh with mode FULL and the parameter repin_types to determine the type again."
)


@dataclass(frozen=True)
class ColumnTypes:
    """The types of columns that a configuration sets."""

    types: Mapping[str, pl.DataType]  # given, dates and entities among them
    stated: frozenset[str]  # columns that `types` names
    marks: NumberFormat
    date_formats: Callable[[str], str]
    null_values: Callable[[str], Sequence[str]]

    @staticmethod
    def from_config(config: Config, dates: Sequence[str]) -> ColumnTypes:
        """Read the types from a configuration; `dates` are the columns that hold dates.

        Raises:
            InvalidConfig: a property is malformed.
        """
        given = read_types(config)
        check_dates(given, dates)
        return ColumnTypes(
            types={ENTITY: pl.String(), **given, **dict.fromkeys(dates, pl.Date())},
            stated=frozenset(given),
            marks=_read_marks(config),
            date_formats=_read_formats(config),
            null_values=_read_null_values(config),
        )


def _read_marks(config: Config) -> NumberFormat:
    marks = {}
    for name, default in (("decimal", "."), ("thousands", "")):
        value = config.get(name)
        value = default if value is None else value
        if not isinstance(value, str) or len(value) > 1 or (value and (value.isalnum() or value in "+-\n\r")):
            raise InvalidConfig(
                f"{name}: must be one character that is not a digit, letter or sign, not {describe_value(value)}"
            )
        marks[name] = value
    if not marks["decimal"]:
        raise InvalidConfig("decimal: must be one character")
    if marks["decimal"] == marks["thousands"]:
        raise InvalidConfig(
            f"thousands: {marks['thousands']!r} is the decimal mark as well; use another character"
        )
    return NumberFormat(**marks, is_given="decimal" in config)


def _read_formats(config: Config) -> Callable[[str], str]:
    value = config.get("date_format")
    if isinstance(value, Mapping):
        formats = {name: text for name, text in value.items() if isinstance(text, str) and text}
        if len(formats) < len(value):
            raise InvalidConfig("date_format: must be a format, or an object of columns and their formats")
        return lambda name: formats.get(name, "")
    if value is not None and not isinstance(value, str):
        raise InvalidConfig(
            f"date_format: must be a format, or an object of columns and formats, not {describe_value(value)}"
        )
    return lambda _: value or ""


def _read_null_values(config: Config) -> Callable[[str], Sequence[str]]:
    value = config.get("null_values")
    if isinstance(value, Mapping):
        by_column = {name: _read_words(words, f"null_values.{name}") for name, words in value.items()}
        return lambda name: by_column.get(name, ())
    words = _read_words(value, "null_values")
    return lambda _: words


def _read_words(value: object, path: str) -> Sequence[str]:
    if value is None:
        return ()
    if not isinstance(value, list | tuple) or not all(isinstance(word, str) for word in value):
        raise InvalidConfig(f"{path}: must be a list of texts, not {describe_value(value)}")
    return tuple(value)


@dataclass
class Report:
    """The report of a refresh about the types, by column."""

    guessed: dict[str, object] = field(default_factory=dict)
    held: dict[str, object] = field(default_factory=dict)
    given: dict[str, object] = field(default_factory=dict)
    kept_as_text: dict[str, object] = field(default_factory=dict)
    widened: dict[str, object] = field(default_factory=dict)
    digits_lost: dict[str, object] = field(default_factory=dict)
    nulls_read: dict[str, object] = field(default_factory=dict)

    def add_to_metrics(self, report: Callable[[str, object], None]) -> None:
        """Add the report to a run's metrics."""
        for name, found in (
            ("types_given", self.given),
            ("types_held", self.held),
            ("types_guessed", self.guessed),
            ("kept_as_text", self.kept_as_text),
            ("types_widened", self.widened),
            ("digits_lost", self.digits_lost),
            ("null_values_read", self.nulls_read),
        ):
            if found:
                report(name, shorten(found))


def type_columns(
    text: CsvText, rules: ColumnTypes, held: HeldTypes, source: str
) -> tuple[pl.DataFrame, Report]:
    """Return the table of a file, and how its columns came to their types.

    Raises:
        InvalidConfig: a format is none, or a type is given for a column that is not there.
        UnparsableData: a value does not fit its column's type; naming column and row.
    """
    _check_names(rules, text.columns.columns)
    report = Report()
    columns = []
    for texts in text.columns:
        words = rules.null_values(texts.name)
        if words:
            is_word = texts.is_in(words).fill_null(value=False)
            if count := int(is_word.sum()):
                report.nulls_read[texts.name] = count
            texts = texts.set(is_word, None)  # noqa: PLW2901 - the same column without them
        columns.append(_type_column(texts, text, rules, held, source, report))
    return pl.DataFrame(columns), report


def _check_names(rules: ColumnTypes, names: Sequence[str]) -> None:
    if unknown := sorted(rules.stated - set(names)):
        raise InvalidConfig(
            f"types.{unknown[0]}: the table has no column {unknown[0]!r}; it has {describe_columns(names)}"
        )


def _type_column(
    texts: pl.Series, text: CsvText, rules: ColumnTypes, held: HeldTypes, source: str, report: Report
) -> pl.Series:
    name = texts.name
    if kind := rules.types.get(name):
        fitted = fit(texts, kind, rules.marks, _format_of(rules, name, kind), is_given=True)
        if isinstance(fitted, Misfit):
            raise misfit_error(source, name, kind, fitted, text.locate(fitted.row), _GIVEN)
        report.given[name] = describe_type(kind)
        if fitted.lossy_count:
            report.digits_lost[name] = fitted.lossy_count
        return fitted.values
    if kind := held.types.get(name):
        fitted = fit(texts, kind, rules.marks, _format_of(rules, name, kind), is_given=False)
        if not isinstance(fitted, Misfit):
            report.held[name] = describe_type(fitted.values.dtype)
            if fitted.row is not None:
                where = text.locate(fitted.row)
                report.widened[name] = f"Int64 to Float64, for {fitted.widened!r} in {where}"
            return fitted.values
        if name not in held.empty:
            raise misfit_error(source, name, kind, fitted, text.locate(fitted.row), _HELD)
    return _judge_column(texts, text, rules, report)


def _format_of(rules: ColumnTypes, name: str, kind: pl.DataType) -> str:
    date_format = rules.date_formats(name)
    # One without hours is meant for the days among the columns.
    return date_format if kind == pl.Date() or times.has_clock(date_format) else ""


def _judge_column(texts: pl.Series, text: CsvText, rules: ColumnTypes, report: Report) -> pl.Series:
    judged = judge(texts, rules.marks)
    if judged.values.dtype != pl.Null():
        report.guessed[texts.name] = describe_type(judged.values.dtype)
    if judged.why:
        where = "" if judged.row is None else f" ({text.locate(judged.row)})"
        report.kept_as_text[texts.name] = f"{judged.why}{where}"
    return judged.values
