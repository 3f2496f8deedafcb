"""What messages say of types, values and errors: in the words of the field, and nothing of Python's or a library's."""

from __future__ import annotations

import datetime as dt
import errno
import re
from collections.abc import Callable

import polars as pl
import pytest

from optaic.plugins import DateRange, HeldTypes, PluginError, take_days
from optaic.plugins.words import describe_error, describe_type, describe_value
from worker.builtin.digest import canonicalize
from worker.builtin.parameters import read_choice, read_date, read_names, read_number, read_section, read_text
from worker.builtin.typed.holding import settle
from worker.output_schema import check_output
from worker.profile import describe
from worker.ranges import put_in_place

_INTERNAL = re.compile(r"time_unit|time_zone=|precision=|<class|None|True|False|\{'|dtype|Error")


@pytest.mark.parametrize(
    ("kind", "word"),
    [
        (pl.Int64(), "Int64"), (pl.String(), "String"), (pl.Datetime("us"), "Datetime"),
        (pl.Datetime("us", "Asia/Kolkata"), "Datetime in Asia/Kolkata"),
        (pl.Datetime("ns", "UTC"), "Datetime of nanoseconds in UTC"), (pl.Duration("ms"), "Duration of milliseconds"),
        (pl.Decimal(38, 2), "Decimal"), (pl.List(pl.Int64()), "List"), (pl.Enum(["a"]), "Enum"), (pl.Null(), "Null"),
    ],
)  # fmt: skip
def test_a_type_has_a_plain_word(kind: pl.DataType, word: str) -> None:
    assert describe_type(kind) == word


def test_a_value_is_shown_as_json_has_it() -> None:
    values = ["x", None, True, 1.5, {"a": None}, [1, False], object()]
    assert [describe_value(value) for value in values] == [
        "'x'", "null", "true", "1.5", '{"a": null}', "[1, false]", "a value that no configuration can have",
    ]  # fmt: skip


def test_only_the_first_line_of_an_error_is_shown() -> None:
    text = "could not parse `x`\n\nYou might want to try:\n- increasing `infer_schema_length`"
    assert describe_error(pl.exceptions.ComputeError(text)) == "could not parse `x`"
    assert (
        describe_error(OSError(errno.ENOSPC, "No space left on device", "/data/a"))
        == "No space left on device: /data/a"
    )
    assert describe_error(TimeoutError()) == "timeout error"


_RANGE = DateRange(dt.date(2024, 1, 1), None)
_TIMES = pl.DataFrame({"date": [dt.date(2024, 1, 1)], "at": [dt.datetime(2024, 1, 1, tzinfo=dt.UTC)]})


def _messages() -> list[str]:
    """What is said of wrong types and values, all over the worker."""
    found = []
    naive, parts = _TIMES.with_columns(pl.col("at").dt.replace_time_zone(None)), pl.DataFrame({"a": [[1]]})
    held_as_text = _TIMES.with_columns(at=pl.lit("x"))
    calls: list[Callable[[], object]] = [
        lambda: canonicalize(parts, []),
        lambda: take_days(parts["a"], "UTC"),
        lambda: put_in_place(naive, _TIMES, _RANGE, allow_deletion=False),
        lambda: settle(held_as_text, _held(_TIMES), {}, is_free=False),
        lambda: check_output(_TIMES, {"properties": {"at": {"type": "number"}}}),
        *(
            lambda read=read, value=value: read({"x": value}, "x")
            for read in (read_section, read_text, read_names, read_date)
            for value in (True, {"a": None}, [None])
        ),
        lambda: read_number({"x": True}, "x", 1.0),
        lambda: read_choice({"x": False}, "x", ("a",), "a"),
    ]
    for call in calls:
        try:
            call()
        except PluginError as error:
            found.append(str(error))
    return found


def _held(table: pl.DataFrame) -> HeldTypes:
    return HeldTypes(table.schema, frozenset)


def test_no_message_shows_how_python_or_polars_writes_a_type_or_value() -> None:
    messages = _messages()
    assert len(messages) >= 15
    assert not [text for text in messages if _INTERNAL.search(text)]
    profile = describe(_TIMES, ())
    assert profile is not None
    assert [column.type for column in profile.columns] == ["Date", "Datetime in UTC"]
