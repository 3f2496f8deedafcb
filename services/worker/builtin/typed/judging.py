"""Determine the type of a column of texts from all its rows, or read it as its pinned type; pure functions."""

from __future__ import annotations

from dataclasses import dataclass, replace

import polars as pl

from worker.builtin.typed import numbers, times
from worker.builtin.typed.numbers import NumberFormat

_TRUE, _FALSE = "true", "false"


@dataclass(frozen=True)
class Judged:
    """The type that a column got, and why."""

    values: pl.Series
    why: str = ""  # what kept it text; empty where it is none
    row: int | None = None  # of the value that did


@dataclass(frozen=True)
class Misfit:
    """The first value that does not fit the type of its column."""

    row: int
    text: str
    why: str
    count: int


@dataclass(frozen=True)
class Fitted:
    """A column as the type that it has to be."""

    values: pl.Series
    widened: str = ""  # the value for which it became Float64
    row: int | None = None  # of that value
    lossy_count: int = 0  # numbers with more digits than Float64 keeps


def judge(texts: pl.Series, marks: NumberFormat) -> Judged:
    """Convert texts to values if their type is certain, else keep the texts; dates are never guessed."""
    present = texts.drop_nulls()
    if present.is_empty():
        return Judged(pl.Series(texts.name, [None], pl.Null).new_from_index(0, texts.len()))
    if present.is_in([_TRUE, _FALSE]).all():
        return Judged(texts == _TRUE)
    fitted = _fit_strict(texts, pl.Int64(), marks)
    if isinstance(fitted, Misfit):
        return Judged(texts, _explain(fitted, present, marks), fitted.row)
    if fitted.values.dtype == pl.Float64() and (clash := numbers.find_collision(texts, fitted.values, marks)):
        row = (texts == clash[1]).arg_max()
        return Judged(texts, f"{clash[0]!r} and {clash[1]!r} would become one number", row)
    return Judged(fitted.values)


def find_alteration(texts: pl.Series) -> str:
    """Return why a column would lose information as numbers; empty if it would not. Words like `NaN` are numbers here."""
    is_word = texts.str.contains(r"^[+-]?(NaN|inf)$").fill_null(value=False)
    return judge(texts.set(is_word, None), NumberFormat()).why


def fit(
    texts: pl.Series, kind: pl.DataType, marks: NumberFormat, date_format: str, *, is_given: bool
) -> Fitted | Misfit:
    """Convert the values to a type.

    Args:
        texts: what the column holds.
        kind: what it has to be.
        marks: how numbers are written.
        date_format: how dates and times are; empty: as in ISO 8601.
        is_given: the type is configured: numbers may then be written in any way. Otherwise the type was once judged by the
            column's values, and Int64 may become Float64.

    Raises:
        InvalidConfig: the format of dates is none.
    """
    if kind == pl.String():
        return Fitted(texts)
    if kind.is_numeric():
        return _fit_given(texts, kind, marks) if is_given else _fit_strict(texts, kind, marks)
    if kind == pl.Boolean():
        lower = texts.str.to_lowercase() if is_given else texts
        values = (lower == _TRUE).set(~lower.is_in([_TRUE, _FALSE]), None)
        return _fitted(texts, values, "is neither true nor false")
    if kind == pl.Date():
        values = times.to_dates(texts, date_format)
        return _fitted(texts, values, f"is not a date like {date_format or times.ISO_DATE}")
    values = times.to_times(texts, date_format)
    shape = date_format or "2024-12-31 16:00:00, all with an offset or none"
    fitted = _fitted(texts, values, f"is not a time like {shape}")
    if isinstance(fitted, Misfit) and ":60" in fitted.text:
        return replace(fitted, why=f"{fitted.why}; leap seconds (:60) are not supported")
    return fitted


def _fit_given(texts: pl.Series, kind: pl.DataType, marks: NumberFormat) -> Fitted | Misfit:
    """Convert texts to numbers in any notation that people use."""
    texts = texts.str.strip_chars()
    if kind.is_integer():
        ints = numbers.to_ints(texts, marks.lenient_int, marks)
        return _fitted(texts, ints, "is not a whole number within Int64")
    floats = numbers.to_floats(texts, marks.lenient_float, marks)
    fitted = _fitted(texts, floats, "is not a number")
    if isinstance(fitted, Misfit):
        return fitted
    return Fitted(floats, lossy_count=int(numbers.find_lossy(texts, floats, marks).sum()))


def _fit_strict(texts: pl.Series, kind: pl.DataType, marks: NumberFormat) -> Fitted | Misfit:
    """Convert texts to numbers, if the numbers would be written in the same way; Int64 widens."""
    ints = numbers.to_ints(texts, marks.strict_int, marks)
    if kind.is_integer():
        if ints.null_count() == texts.null_count():
            return Fitted(ints)
        if misfit := _find_too_large(texts, ints, marks):
            return misfit
    floats = numbers.to_floats(texts, marks.strict_float, marks)
    if misfit := _find_misfit(texts, floats, marks):
        return misfit
    if not kind.is_integer():
        return Fitted(floats)
    row = (ints.is_null() & texts.is_not_null()).arg_max()
    assert row is not None
    return Fitted(floats, widened=texts[row], row=row)


def _fitted(texts: pl.Series, values: pl.Series, why: str) -> Fitted | Misfit:
    wrong = values.is_null() & texts.is_not_null()
    if not wrong.any():
        return Fitted(values)
    row = wrong.arg_max()
    assert row is not None
    return Misfit(row, texts[row], why, int(wrong.sum()))


def _find_too_large(texts: pl.Series, ints: pl.Series, marks: NumberFormat) -> Misfit | None:
    """Return the first number too large for Int64 in a column of whole numbers: they are names, not amounts."""
    if not texts.drop_nulls().str.contains(marks.strict_int).all():
        return None
    fitted = _fitted(texts, ints, "is too large for Int64")
    return fitted if isinstance(fitted, Misfit) else None


def _find_misfit(texts: pl.Series, floats: pl.Series, marks: NumberFormat) -> Misfit | None:
    """Return the first text that is no number, or would lose digits as one."""
    wrong = floats.is_null() & texts.is_not_null()
    if wrong.any():
        row = wrong.arg_max()
        assert row is not None
        text = texts[row]
        is_written = bool(pl.Series([text.strip()]).str.contains(marks.lenient_float).item())
        why = "would change if written as a number" if is_written else "is not a number"
        return Misfit(row, text, why, int(wrong.sum()))
    lossy = numbers.find_lossy(texts, floats, marks)
    if lossy.any():
        row = lossy.arg_max()
        assert row is not None
        return Misfit(row, texts[row], "has more digits than Float64 can keep", int(lossy.sum()))
    return None


def _explain(misfit: Misfit, present: pl.Series, marks: NumberFormat) -> str:
    """Return why a column remains text, and what to do if it should not."""
    text = f"{misfit.text!r} {misfit.why}"
    others = present.len() - misfit.count
    if not others and misfit.why == "is not a number" and not numbers.find_hint(misfit.text, marks):
        return text
    hint = numbers.find_hint(misfit.text, marks)
    share = f" ({others} of {present.len()} values are)" if others and misfit.why == "is not a number" else ""
    return f"{text}{share}" + (f": {hint}" if hint else "")
