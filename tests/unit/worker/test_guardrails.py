"""What a pipeline's definition promises of its table."""

from __future__ import annotations

import datetime as dt
import itertools
from typing import Any

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from instance_service.domain.contracts import CHECKS, OF_WEIGHTS
from optaic.plugins import GuardrailViolated, PluginError, SchemaMismatch
from worker.guardrails import Guardrail, check_guardrails
from worker.output_schema import check_output

_TODAY = dt.date(2024, 1, 10)


def _day(day: int) -> dt.date:
    return dt.date(2024, 1, day)


def _table(**columns: Any) -> pl.DataFrame:
    rows = {"date": [_day(8), _day(9)], "entity": ["A", "B"], "value": [1.0, -1.0]}
    return pl.DataFrame({**rows, "knowledge_date": [_day(9), _day(10)], **columns})


_NAN, _INF = float("nan"), float("inf")
_TEXTS = ["x", "y"]
# Check, parameters, a table that keeps it, and one that breaks it with a part of what is said.
_CASES: list[tuple[str, dict[str, Any], pl.DataFrame, pl.DataFrame, str]] = [
    ("required_columns", {"columns": ["value", "date"]}, _table(), _table().drop("value"), "column 'value' is missing"),
    ("signal_bounds", {"min": -1, "max": 1}, _table(), _table(value=[0.0, -1.5]), "1 values of 'value' outside [-1, 1], the first in row 2"),
    ("signal_bounds", {"max": 1}, _table(value=[_NAN, None]), _table(value=[0.0, 2.0]), "1 values of 'value' outside [, 1], the first in row 2"),
    ("signal_bounds", {"min": 0}, _table(value=[None, None]), _table(value=[0.0, _INF]), "1 values of 'value' outside [0, ], the first in row 2"),
    ("signal_bounds", {"min": 0, "column": "score"}, _table(score=[0, 1]), _table(), "column 'score' is missing"),
    ("signal_bounds", {"min": 0}, _table().clear(), _table(value=_TEXTS), "not numeric"),
    ("point_in_time", {}, _table(), _table(knowledge_date=[_day(9), None]), "1 rows without 'knowledge_date'"),
    ("point_in_time", {}, _table(knowledge_date=[_day(8), _day(9)]), _table(knowledge_date=[_day(9), _day(11)]), "1 rows that became known only after 2024-01-10"),
    ("point_in_time", {}, _table().drop("date"), _table(knowledge_date=[_day(7), _day(10)]), "1 rows that became known before their date"),
    ("point_in_time", {"column": "since"}, _table(since=[dt.datetime(2024, 1, 9, 8, tzinfo=dt.UTC)] * 2), _table(), "column 'since' is missing"),
    ("point_in_time", {"column": "date"}, _table(), _table(date=_TEXTS), "when each row became known"),
    ("freshness", {"max_age_days": 1.0}, _table(), _table(date=[_day(7), _day(8)]), "2024-01-08, is 2 days before 2024-01-10"),
    ("freshness", {"max_age_days": 0}, _table(date=[None, _day(10)]), _table().clear(), "no row has a date"),
    ("freshness", {"max_age_days": 0}, _table(date=[_day(11), _day(10)]), _table().drop("date"), "column 'date' is missing"),
]  # fmt: skip


@pytest.mark.parametrize(("case", "blocks"), list(itertools.product(_CASES, (True, False))))
def test_every_check_blocks_or_warns(
    case: tuple[str, dict[str, Any], pl.DataFrame, pl.DataFrame, str], *, blocks: bool
) -> None:
    check, parameters, good, bad, text = case
    guardrails = [Guardrail("mine", check, parameters, blocks=blocks)]
    assert check_guardrails(good, guardrails, _TODAY) == {}
    if blocks:
        with pytest.raises(GuardrailViolated) as refused:
            check_guardrails(bad, guardrails, _TODAY)
        assert refused.value.message.startswith(f"guardrail 'mine' ({check}): ")
        assert text in refused.value.message
    else:
        (warning,) = check_guardrails(bad, guardrails, _TODAY).items()
        assert warning[0] == "mine"
        assert text in warning[1]


def test_every_guardrail_of_a_pipeline_is_implemented() -> None:
    assert {case[0] for case in _CASES} == set(CHECKS) - set(OF_WEIGHTS)
    with pytest.raises(PluginError, match="the check 'of tomorrow' does not exist") as refused:
        check_guardrails(_table(), [Guardrail("a", "of tomorrow", {}, blocks=False)], _TODAY)
    assert refused.value.type == "UnsupportedGuardrail"


def test_everything_that_blocks_is_named_at_once() -> None:
    names = ("one", "two")
    guardrails = [Guardrail(name, "required_columns", {"columns": [name]}, blocks=True) for name in names]
    with pytest.raises(GuardrailViolated, match=r"'one'.*; guardrail 'two'"):
        check_guardrails(_table(), guardrails, _TODAY)


def _properties(**described: Any) -> dict[str, Any]:
    return {"type": "object", "properties": described}


@pytest.mark.parametrize(
    "schema",
    [
        {},
        _properties(date={"type": "string", "format": "date"}, entity={"type": ["string", "null"]}),
        _properties(value={"type": "number"}, absent={"type": "string"}, date={"type": "string"}),
        _properties(value={"description": "anything"}, entity=True, date={"$ref": "#/$defs/date"}),
        {**_properties(date=True, entity=True, value=True), "additionalProperties": False},
        {"required": ["date", "value"], "additionalProperties": False, "patternProperties": {"^[a-z_]+$": True}},
    ],
)  # fmt: skip
def test_a_table_that_fits_its_schema_passes(schema: dict[str, Any]) -> None:
    check_output(_table().drop("knowledge_date"), schema)
    nothing = (
        _table().drop("knowledge_date").with_columns(pl.lit(None).alias(name) for name in ("date", "value"))
    )
    check_output(nothing, schema)


@pytest.mark.parametrize(
    ("schema", "text"),
    [
        ({"required": ["close"]}, "column 'close' is missing"),
        (_properties(value={"type": ["string", "null"]}), "column 'value' is Float64"),
        (_properties(value={"type": "integer"}), "column 'value' is Float64"),
        (_properties(entity={"type": "string", "format": "date"}), "column 'entity' is String"),
        (_properties(entity=False), "column 'entity' is String"),
        (
            {**_properties(date=True, entity=True), "additionalProperties": False},
            "column 3 is not in the schema",
        ),
    ],
)
def test_a_table_that_does_not_is_refused(schema: dict[str, Any], text: str) -> None:
    with pytest.raises(SchemaMismatch, match=text):
        check_output(_table(), schema)


def _judged(
    table: pl.DataFrame, guardrails: list[Guardrail], as_of: dt.date, part: pl.DataFrame | None = None
) -> dict[str, str] | str:
    try:
        return check_guardrails(table, guardrails, as_of, part)
    except GuardrailViolated as error:
        return str(error)


_VALUES = st.sampled_from([0.5, -0.5, 0.25, 1.5, None, _NAN])


@st.composite
def _versions(draw: st.DrawFn) -> tuple[pl.DataFrame, pl.DataFrame, dt.date]:
    """Return a content, the one after it, and the date before which they are the same."""
    start = draw(st.integers(1, 6))
    rows = [(day, entity) for day in range(1, 6) for entity in "AB"]
    before, after = [], []
    for day, entity in rows:
        row = (_day(day), entity, draw(_VALUES), draw(_VALUES), _day(draw(st.integers(day, 9))))
        other = (*row[:2], draw(_VALUES), draw(_VALUES), row[4])
        before.append(row)
        after += [row] if day < start else [other] * draw(st.integers(0, 1))
    schema = {
        "date": pl.Date,
        "entity": pl.String,
        "value": pl.Float64,
        "weight": pl.Float64,
        "knowledge_date": pl.Date,
    }
    tables = [pl.DataFrame(each, schema, orient="row") for each in (before, after)]
    return tables[0], tables[1], _day(start)


_CHOICES = st.lists(
    st.tuples(
        st.sampled_from(
            [
                ("required_columns", {"columns": ["value"]}),
                ("required_columns", {"columns": ["open"]}),
                ("signal_bounds", {"min": -1, "max": 1}),
                ("point_in_time", {}),
                ("freshness", {"max_age_days": 6}),
                ("weights_sum", {"target": 1.0}),
                ("weights_limits", {"min": 0, "max": 1}),
                ("leverage", {"max": 1.0}),
            ]
        ),
        st.booleans(),
    ),
    min_size=1,
    max_size=8,
)


@settings(max_examples=300, deadline=None)
@given(_versions(), _CHOICES, st.integers(5, 12), st.integers(5, 12))
def test_a_part_is_judged_as_the_whole_is(
    versions: tuple[pl.DataFrame, pl.DataFrame, dt.date],
    choices: list[tuple[tuple[str, dict[str, Any]], bool]],
    before_as_of: int,
    as_of: int,
) -> None:
    before, after, start = versions
    guardrails = [
        Guardrail(str(number), check, parameters, blocks)
        for number, ((check, parameters), blocks) in enumerate(choices)
    ]
    # A version that breaks one that blocks would not be there.
    guardrails = [one for one in guardrails if isinstance(_judged(before, [one], _day(before_as_of)), dict)]
    part = after.filter(pl.col("date") >= start)
    assert _judged(after, guardrails, _day(as_of), part) == _judged(after, guardrails, _day(as_of))
