"""Parse numbers in several formats, without losing information; pure functions.

Strict is what a guess may take: writing the number back gives the same text, or another of the same meaning. `007`,
`1e5`, `+1` and `NaN` are words to it. Lenient formats are read if the configuration says that the column holds numbers.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from decimal import Decimal
from functools import cached_property
from math import isfinite

import polars as pl

_EXACT_DIGITS = 15  # every number with at most these digits is exact as Float64


@dataclass(frozen=True)
class NumberFormat:
    """The marks in numbers."""

    decimal: str = "."
    thousands: str = ""
    is_given: bool = False  # the format is configured: then `1.10` is not taken as the name of a version

    @cached_property
    def _natural(self) -> str:
        grouped = f"|[1-9][0-9]{{0,2}}(?:{re.escape(self.thousands)}[0-9]{{3}})+" if self.thousands else ""
        return f"(?:[1-9][0-9]*{grouped})"

    @cached_property
    def _any_whole(self) -> str:
        grouped = f"|[0-9]{{1,3}}(?:{re.escape(self.thousands)}[0-9]{{3}})+" if self.thousands else ""
        return f"(?:[0-9]+{grouped})"

    @cached_property
    def strict_int(self) -> str:
        """Return the pattern of whole numbers as a program writes them."""
        return f"^(?:0|-?{self._natural})$"

    @cached_property
    def strict_float(self) -> str:
        """Return the pattern of numbers as a program writes them; a bare exponent is no number, because it may be a name."""
        mark = re.escape(self.decimal)
        return (
            f"^-?(?:(?:0|{self._natural})(?:{mark}[0-9]+(?:[eE][+-]?[0-9]+)?|[eE][+-][0-9]+)?"
            f"|{mark}[0-9]+(?:[eE][+-]?[0-9]+)?)$"
        )

    @cached_property
    def lenient_int(self) -> str:
        """Return the pattern of whole numbers as people write them."""
        return f"^[+-]?{self._any_whole}$"

    @cached_property
    def lenient_float(self) -> str:
        """Return the pattern of numbers as people write them."""
        mark = re.escape(self.decimal)
        return f"^[+-]?(?:{self._any_whole}(?:{mark}[0-9]*)?|{mark}[0-9]+)(?:[eE][+-]?[0-9]+)?$"

    def plain(self, texts: pl.Series) -> pl.Series:
        """Rewrite numbers as Python and polars write them."""
        if self.thousands:
            texts = texts.str.replace_all(self.thousands, "", literal=True)
        return texts if self.decimal == "." else texts.str.replace_all(self.decimal, ".", literal=True)


def to_ints(texts: pl.Series, pattern: str, marks: NumberFormat) -> pl.Series:
    """Convert texts to Int64; null if a text is no whole number, or the number is too large."""
    plain = marks.plain(texts)
    fits = texts.str.contains(pattern)
    values = plain.str.strip_prefix("+").cast(pl.Int64, strict=False)
    return values.set(~fits.fill_null(value=False), None)


def to_floats(texts: pl.Series, pattern: str, marks: NumberFormat) -> pl.Series:
    """Convert texts to Float64; null if a text is no number, or the number is too large."""
    plain = marks.plain(texts)
    fits = texts.str.contains(pattern)
    values = plain.str.strip_prefix("+").cast(pl.Float64, strict=False)
    return values.set(~(fits & values.is_finite()).fill_null(value=False), None)


def find_lossy(texts: pl.Series, values: pl.Series, marks: NumberFormat) -> pl.Series:
    """Return where a number has more digits than Float64 can keep, so that writing it back gives another number.

    Args:
        texts: what is written.
        values: the same as Float64.
        marks: how it is written.
    """
    plain = marks.plain(texts)
    digits = plain.str.replace(r"[eE].*$", "").str.replace_all(r"[^0-9]", "").str.strip_chars_start("0")
    is_long = (digits.str.len_chars() > _EXACT_DIGITS) | plain.str.contains("[eE]")
    # What a program wrote comes back as it was.
    suspect = (is_long & (values.cast(pl.String) != plain)).fill_null(value=False)
    where = suspect.arg_true()
    result = pl.Series(texts.name, [False]).new_from_index(0, texts.len())
    if where.is_empty():
        return result
    return result.scatter(where, [not _keeps(text) for text in plain.filter(suspect)])


def _keeps(text: str) -> bool:
    mantissa = re.sub(r"[eE].*$", "", text)
    digits = len(re.sub(r"[^0-9]", "", mantissa).lstrip("0"))
    value = float(text)
    if not digits:
        return True
    if not isfinite(value):
        return False
    # Zeros at the end are no digits that get lost: the shortest number that reads as the same one is this.
    return Decimal(text) in {Decimal(repr(value)), Decimal(f"{value:.{digits - 1}e}")}


def find_collision(texts: pl.Series, values: pl.Series, marks: NumberFormat) -> tuple[str, str] | None:
    """Return two texts that would become one number, `1.1` and `1.10`; then the texts are names."""
    if marks.is_given:
        return None
    fractions = texts.str.extract(rf"{re.escape(marks.decimal)}([0-9]+)$")
    lengths = fractions.str.len_chars()
    has_all = fractions.null_count() == texts.null_count()
    if not fractions.str.ends_with("0").any() or (has_all and lengths.min() == lengths.max()):
        return None
    pairs = pl.DataFrame({"text": texts, "value": values}).drop_nulls().unique()
    repeated = pairs.filter(pl.col("value").is_duplicated()).sort("value", "text")
    return None if repeated.is_empty() else (repeated["text"][0], repeated["text"][1])


def find_hint(text: str, marks: NumberFormat) -> str:
    """Suggest the option that would read a text as a number; empty if there is none."""
    bare = text.strip()
    if re.fullmatch(r"[+-]?[0-9]{1,3}([,.' \u00a0\u2019_])[0-9]{3}(\1[0-9]{3})*([,.][0-9]+)?", bare):
        return "if it has thousands separators, set `thousands`"
    if marks.decimal != "," and re.fullmatch(r"[+-]?[0-9.]*,[0-9]+", bare):
        return "if its comma is a decimal mark, set `decimal`"
    if bare.lower().strip("#<>()") in _ABSENT:
        return "if it means that there is no value, add it to `null_values`"
    if re.fullmatch(marks.lenient_float, bare):
        return "if it is a number, give the column a number type in `types`"
    return ""


_ABSENT = {
    "na",
    "n/a",
    "nan",
    "null",
    "none",
    "nil",
    "nul",
    "inf",
    "-inf",
    "-",
    "--",
    ".",
    "?",
    "missing",
    "void",
    "n.a.",
}
