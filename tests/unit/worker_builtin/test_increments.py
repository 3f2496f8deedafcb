"""An expression computed from the first changed date on gives what it gives over all dates, bit for bit."""

from __future__ import annotations

import datetime as dt
import random
from typing import Any

import polars as pl
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from optaic.expression import OPERATORS
from optaic.expression.signature import Scope
from optaic.plugins import ChangedDates, InputTable, NoDataInRange, Part, PipelineContext
from worker.builtin.day_digests import DayDigests, find_changed
from worker.builtin.derivation import ExpressionPipeline
from worker.builtin.digest import canonicalize
from worker.increments import add_kept

KEYS = ["date", "entity"]
FIRST = dt.date(2024, 1, 1)
SCHEMA = {"date": pl.Date, "entity": pl.String, "close": pl.Float64, "sector": pl.String}
Rows = dict[tuple[int, str], tuple[float | None, str | None]]


def _call(name: str, inner: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    """Return calls of an operator with short windows."""
    signature = OPERATORS[name]
    numbers = [
        st.just("0.25")
        if parameter.name in {"q", "p", "hump"}
        else st.integers(max(int(parameter.minimum), 1), max(int(parameter.minimum), 4)).map(str)
        for parameter in signature.parameters
        if not parameter.is_optional
    ]
    groups = st.sampled_from([[], ["group=sector"]]) if signature.has_group else st.just([])
    fewest = st.just(list[str]())
    if any(parameter.name == "min_periods" for parameter in signature.parameters):
        fewest = st.sampled_from([[], ["min_periods=1"]])
    parts = st.tuples(st.tuples(*[inner] * signature.values), st.tuples(*numbers), fewest, groups)
    return parts.map(lambda found: f"{name}({', '.join([*found[0], *found[1], *found[2], *found[3]])})")


def _infix(inner: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    symbols = st.sampled_from(["+", "-", "*", "/", "^", "<", ">="])
    return st.tuples(inner, symbols, inner).map(lambda found: f"({' '.join(found)})")


EXPRESSIONS = st.recursive(
    st.sampled_from(["close", "volume", "2", "0.1"]),
    lambda inner: st.one_of(_infix(inner), *(_call(name, inner) for name in sorted(OPERATORS))),
    max_leaves=5,
).filter(lambda text: "close" in text or "volume" in text)


def _frame(rows: Rows, column: str, spread: int = 1) -> pl.DataFrame:
    values = {
        "date": [FIRST + dt.timedelta(days=day * spread) for day, _ in rows],
        "entity": [entity for _, entity in rows],
        "close": [value for value, _ in rows.values()],
        "sector": [sector for _, sector in rows.values()],
    }
    found = canonicalize(pl.DataFrame(values, SCHEMA), KEYS)
    return found if column == "close" else found.drop("sector").rename({"close": column})


def _draw(rng: random.Random) -> tuple[float | None, str | None]:
    value = rng.choice([None, 0.0, 1.0, rng.gauss(0, 1), rng.gauss(0, 1) * 10.0 ** rng.randint(-3, 6)])
    return value, rng.choice(["x", "y", None])


def _start(rng: random.Random) -> Rows:
    return {
        (2 * day, entity): _draw(rng)  # dates are inserted in between later
        for day in range(rng.randint(1, 14))
        for entity in "ABCDE"[: rng.randint(1, 5)]
        if rng.random() < 0.85
    }


def _edit(rows: Rows, what: str, rng: random.Random) -> Rows:
    days = sorted({day for day, _ in rows}) or [0]
    day = days[-1 - min(rng.randint(0, 4), len(days) - 1)]
    if what == "append":
        return rows | {(days[-1] + 2, entity): _draw(rng) for entity in "ABC"}
    if what == "insert a date":
        return rows | {(day + 1, entity): _draw(rng) for entity in "AC"}
    if what == "correct":
        return {key: _draw(rng) if key[0] == day else row for key, row in rows.items()}
    if what == "a new entity":
        return rows | {(each, "N"): _draw(rng) for each in days if each >= day}
    gone = {
        "an entity vanishes": {(each, "A") for each in days if each >= day},
        "a date vanishes": {(day, e) for e in "ABCDEN"},
    }
    return {key: row for key, row in rows.items() if key not in gone.get(what, ())}


EDITS = st.sampled_from(
    [
        "append",
        "append",
        "insert a date",
        "correct",
        "a new entity",
        "an entity vanishes",
        "a date vanishes",
        "nothing",
    ]
)
reported: dict[str, Any] = {}


def _context(
    text: str,
    inputs: list[pl.DataFrame],
    previous: pl.DataFrame | None = None,
    changed: ChangedDates | None = None,
) -> PipelineContext:
    tables = tuple(InputTable("input", name, frame.clone) for name, frame in zip("pv", inputs, strict=True))
    return PipelineContext(
        config={"expression": text}, inputs={"input": tables}, previous_reader=lambda: previous, changed=changed,
        report=reported.__setitem__,
    )  # fmt: skip


def run(
    text: str,
    inputs: list[pl.DataFrame],
    previous: pl.DataFrame | None = None,
    changed: ChangedDates | None = None,
) -> pl.DataFrame:
    """Return the whole content, as the worker makes it from what the pipeline returns."""
    reported.clear()
    found = ExpressionPipeline().run(_context(text, inputs, previous, changed))
    if isinstance(found, Part):
        reported["start"] = found.start
        return add_kept(found, previous)
    return found


@settings(max_examples=300, suppress_health_check=[HealthCheck.too_slow], deadline=None)
@example("SCALE(close)", [["an entity vanishes", "append"]], 7)
@example("WINSORIZE(close, 0.25)", [["a new entity"]], 3)
@example(
    "RANK(MEAN(FFILL(close, 2), 3)) + ZSCORE(volume)",
    [["insert a date"], ["a date vanishes"], ["nothing"]],
    5,
)
@given(
    EXPRESSIONS,
    st.lists(st.lists(EDITS, min_size=1, max_size=3), min_size=1, max_size=3),
    st.integers(0, 2**32),
)
def test_the_result_equals_that_of_all_dates(text: str, rounds: list[list[str]], seed: int) -> None:
    """Each round is a run after several versions of its inputs."""
    rng = random.Random(seed)
    tables, spread = [_start(rng), _start(rng)], rng.choice([1, 40])
    frames = [_frame(tables[0], "close", spread), _frame(tables[1], "volume", spread)]
    try:
        previous = run(text, frames)
        for edits in rounds:
            changes = []
            for edit in edits:
                number = rng.randint(0, 1)
                tables[number] = _edit(tables[number], edit, rng)
                now = _frame(tables[number], ("close", "volume")[number], spread)
                change = find_changed(DayDigests.of(frames[number]), DayDigests.of(now))
                changes += [change] if change is not None else []
                frames[number] = now
            starts = [change.start for change in changes if change.start]
            ends = [change.end for change in changes if change.end]
            changed = ChangedDates(min(starts, default=None), max(ends, default=None))
            expected = run(text, frames)
            found = run(text, frames, previous, changed).sort(KEYS)
            assert found.equals(expected)
            assert DayDigests.of(canonicalize(found, KEYS)) == DayDigests.of(canonicalize(expected, KEYS))
            affected = ExpressionPipeline().find_affected(_context(text, frames), changed)
            if isinstance(
                affected, ChangedDates
            ):  # a run of a range that has these dates may keep the others
                assert _outside(previous, affected).equals(_outside(expected, affected))
            previous = found
    except NoDataInRange:
        return  # there are no rows at all


def _outside(table: pl.DataFrame, dates: ChangedDates) -> pl.DataFrame:
    return table if dates.start is None else table.filter(~pl.col("date").is_between(dates.start, dates.end))


@pytest.mark.parametrize(
    ("text", "affected"),
    [
        ("RANK(close) * 2", (4, 5)),
        ("MEAN(close, 3)", (4, 8)),
        ("EMA(close, 3)", "the expression depends on all earlier sessions"),
    ],
)
def test_windows_carry_a_change_to_the_last_date(text: str, affected: tuple[int, int] | str) -> None:
    changed = ChangedDates(*(FIRST + dt.timedelta(days=day) for day in (4, 5)))
    found = ExpressionPipeline().find_affected(_context(text, [_days(9), VOLUMES]), changed)
    if isinstance(affected, str):
        assert found == affected
    else:
        assert found == ChangedDates(*(FIRST + dt.timedelta(days=day) for day in affected))
    nothing = ExpressionPipeline().find_affected(_context(text, [_days(9), VOLUMES]), ChangedDates())
    assert nothing == (affected if isinstance(affected, str) else ChangedDates())


def _days(count: int) -> pl.DataFrame:
    return _frame(
        {(day, entity): (day + ord(entity) / 7, "x") for day in range(count) for entity in "AB"}, "close"
    )


VOLUMES = _days(1).drop("sector").rename({"close": "volume"})


@pytest.mark.parametrize(
    ("text", "first"),
    [
        ("close", 9),
        ("MEAN(close, 3)", 9),
        ("RANK(PCT(MEAN(close, 3), 2))", 9),
        ("WINSORIZE(close, 0.1, sector)", 9),
        ("SCALE(close)", 9),
    ],
)
def test_an_appended_date_is_computed_alone(text: str, first: int) -> None:
    previous = run(text, [_days(9), VOLUMES])
    start = FIRST + dt.timedelta(days=first)
    found = run(text, [_days(10), VOLUMES], previous, ChangedDates(start, start))
    assert reported == {"start": start}
    assert found.equals(run(text, [_days(10), VOLUMES]))


@pytest.mark.parametrize(
    ("text", "because"),
    [
        ("EMA(close, 3)", "the expression depends on all earlier sessions"),
        ("REF(HUMP(close), 2)", "the expression depends on all earlier sessions"),
        ("WINSORIZE(close)", "the last bit of WINSORIZE depends on the number of entities on other dates"),
    ],
)
def test_everything_is_computed_where_a_result_depends_on_it(text: str, because: str) -> None:
    previous = run(text, [_days(9), VOLUMES])
    start = FIRST + dt.timedelta(days=9)
    run(text, [_days(10), VOLUMES], previous, ChangedDates(start, start))
    assert reported == {"full_because": because}


def test_scale_of_one_entity_is_computed_over_all_dates() -> None:
    one, two = _days(10).filter(pl.col("entity") == "A"), _days(10)
    last = FIRST + dt.timedelta(days=9)
    later = pl.col("date") == last
    volumes = VOLUMES.head(1)
    for before, now in (
        (one.filter(~later), one),
        (one.filter(~later), pl.concat([one.filter(~later), two.filter(later)])),
        (two.filter(~later), pl.concat([two.filter(~later), one.filter(later)])),
    ):
        previous = run("SCALE(close)", [before, volumes])
        found = run("SCALE(close)", [now, volumes], previous, ChangedDates(last, last))
        because = "the last bit of SCALE depends on the number of entities on other dates"
        assert reported == {"full_because": because}
        assert found.equals(run("SCALE(close)", [now, volumes]))


@pytest.mark.parametrize("text", ["SCALE(close)", "WINSORIZE(close, 0.1)"])
def test_a_last_bit_of_old_dates_changes_with_the_entities_of_later_ones(text: str) -> None:
    """So without a group WINSORIZE is computed over all dates, and SCALE where a part has one entity only."""
    few = "A" if text.startswith("SCALE") else "ABCDE"
    rows: Rows = {(day, e): ((day * 7 + ord(e) * 3) % 11 / 7 + 0.1, "x") for day in range(4) for e in few}
    more = rows | {(4, e): (1.3, "x") for e in "ABCDEFGHIJKLMNOPQRSTUVW"}
    if few == "A":
        rows, more = (
            {(0, "A"): (49.0, "x")},
            {(0, "A"): (49.0, "x"), (1, "A"): (1.0, "x"), (1, "B"): (3.0, "x")},
        )
    volumes = VOLUMES.head(1)
    before = run(text, [_frame(rows, "close"), volumes])
    assert not before.equals(run(text, [_frame(more, "close"), volumes]).head(before.height))


def test_every_operator_of_time_series_is_tried() -> None:
    tried = {name for name, signature in OPERATORS.items() if signature.scope is Scope.TIME_SERIES}
    assert {
        name for name in tried if OPERATORS[name].warm_up([2.0] * len(OPERATORS[name].parameters)) is None
    } == {"EMA", "HUMP"}
