"""A contract judged by a profile: what is refused, and that enforcing it on the data says the same."""

from __future__ import annotations

from typing import Any

import polars as pl
import pytest
from hypothesis import assume, event, given, settings
from hypothesis import strategies as st

from instance_service.domain.signal_contracts import Breach, Profile, find_breaches
from instance_service.resources.instances.profiles import profile_of
from optaic.plugins import InvalidConfig, PluginError
from optaic.rules.signal_contracts import complete_contract
from worker.builtin.signal_guard import BoundsPolicy, NanPolicy, SignalContract, guard_signal
from worker.profile import describe

NAN, INF = float("nan"), float("inf")
_VALUES: dict[Any, list[Any]] = {
    pl.Float64: [None, NAN, INF, -INF, -2.5, -1.0, 0.0, 1.0, 1.5],
    pl.Float32: [None, -1.0, 0.5],
    pl.Int32: [None, -3, 0, 1],
    pl.Null: [None],
    pl.String: [None, "1.0"],
    pl.Boolean: [True],
}
# Half of the tables have a sound index: else what is in the values would hardly ever decide.
_rows = st.lists(
    st.tuples(st.sampled_from([1, 2, 3]), st.sampled_from(["a", "b"]), st.sampled_from(["x", None])),
    max_size=4,
    unique_by=lambda row: row[:2],
) | st.lists(
    st.tuples(st.sampled_from([1, 2, None]), st.sampled_from(["a", "b"]), st.sampled_from(["x", None])),
    max_size=4,
)
_bounds = st.sampled_from([None, -2.0, -1.0, 0.0, 1.0])
_contracts = st.fixed_dictionaries(
    {
        "min_value": _bounds,
        "max_value": _bounds,
        "neutral_value": st.sampled_from([0.0, 0.5]),
        "nan_policy": st.sampled_from(NanPolicy),
        "bounds_policy": st.sampled_from(BoundsPolicy),
        "index_columns": st.sampled_from(
            [["date", "entity"]] * 3 + [["date", "desk", "entity"], ["entity"], ["nowhere"]]
        ),
    }
)


@st.composite
def _tables(draw: st.DrawFn) -> pl.DataFrame:
    rows = draw(_rows)
    kind = draw(st.sampled_from([pl.Float64] * 5 + list(_VALUES)))
    pool = draw(st.lists(st.sampled_from(_VALUES[kind]), min_size=1, max_size=2))
    values = draw(st.lists(st.sampled_from(pool), min_size=len(rows), max_size=len(rows)))
    name = draw(st.sampled_from(["value"] * 5 + ["score"]))
    frame = pl.DataFrame(
        rows, schema={"date": pl.Int64, "entity": pl.String, "desk": pl.String}, orient="row"
    )
    return frame.with_columns(pl.Series(name, values, dtype=kind))


def _profile(table: pl.DataFrame, keys: tuple[str, ...] = ()) -> Profile:
    described = describe(table, keys)
    assert described is not None
    return profile_of(described.SerializeToString())


def _is_kept(table: pl.DataFrame, contract: dict[str, Any]) -> bool:
    """Whether the data passes the guard, and comes out as it went in; only the type of numbers may change."""
    try:
        guarded = guard_signal(
            table,
            SignalContract(
                contract["min_value"],
                contract["max_value"],
                contract["neutral_value"],
                contract["nan_policy"],
                contract["bounds_policy"],
                tuple(contract["index_columns"]),
            ),
        )
    except PluginError as error:
        assume(not isinstance(error, InvalidConfig))
        return False
    return guarded.table.equals(table.with_columns(pl.col("value").cast(pl.Float64)))


@settings(max_examples=500)
@given(table=_tables(), contract=_contracts)
def test_the_profile_accepts_exactly_the_tables_that_the_contract_leaves_unchanged(
    table: pl.DataFrame, contract: dict[str, Any]
) -> None:
    profile = _profile(table)
    is_kept = _is_kept(table, contract)
    breaches = find_breaches(profile, contract, "value")
    event(f"kept: {is_kept}, admitted: {not breaches}")
    if not breaches:
        assert is_kept
    elif is_kept:  # the profile cannot know of any columns whether they identify a row
        (breach,) = breaches
        assert "it is not known that they identify a row" in breach.description
        assert not set(profile.keys) or not set(profile.keys) <= set(contract["index_columns"])


def _table(*values: Any) -> pl.DataFrame:
    return pl.DataFrame(
        {
            "date": range(len(values)),
            "entity": ["a"] * len(values),
            "value": pl.Series(values, dtype=pl.Float64, strict=False),
        }
    )


def _judge(table: pl.DataFrame, column: str = "value", **contract: Any) -> list[Breach]:
    return find_breaches(_profile(table), complete_contract(contract), column)


@pytest.mark.parametrize("nan_policy", ["keep", "drop", "neutral", "fail"])
@pytest.mark.parametrize("bounds_policy", ["reject", "winsorize"])
def test_every_violation_has_its_path_and_column(nan_policy: str, bounds_policy: str) -> None:
    table = _table(-9.0, 0.0, 9.0, None, NAN, INF)
    found = _judge(table, min_value=-1.0, max_value=1.0, nan_policy=nan_policy, bounds_policy=bounds_policy)
    nulls = [] if nan_policy == "keep" else ["contract.nan_policy"]
    assert [breach.path for breach in found] == [
        *nulls,
        "contract.nan_policy",
        "contract",
        "contract.min_value",
        "contract.max_value",
    ]
    assert {breach.column for breach in found} == {"value"}
    assert "-9" in found[-2].description


@pytest.mark.parametrize("nan_policy", ["keep", "drop", "neutral", "fail"])
@pytest.mark.parametrize("bounds_policy", ["reject", "winsorize"])
def test_data_within_the_contract_is_admitted(nan_policy: str, bounds_policy: str) -> None:
    policies = {"nan_policy": nan_policy, "bounds_policy": bounds_policy}
    assert _judge(_table(-1.0, 0.0, 1.0), min_value=-1.0, max_value=1.0, **policies) == []
    assert _judge(_table(-1.0, 0.0, 1.0), **policies) == []
    assert _judge(_table(), **policies) == []


def test_columns_that_are_not_there_or_no_numbers_are_named() -> None:
    (missing,) = _judge(_table(1.0), "score")
    assert (missing.path, missing.column) == ("contract", "score")
    assert "date, entity, value" in missing.description
    (text,) = _judge(_table(1.0), "entity")
    assert "not numeric but String" in text.description
    (index,) = _judge(_table(1.0, 2.0), index_columns=["date", "desk"])
    assert (index.path, index.column) == ("contract.index_columns", "desk")


def test_an_index_must_hold_columns_that_identify_a_row() -> None:
    table = _table(1.0, 2.0)
    (unknown,) = _judge(table, index_columns=["date"])
    assert unknown.description == "it is not known that they identify a row, only that date, entity do"
    assert _judge(table, index_columns=["date", "entity", "value"]) == []
    assert _judge(_table(1.0), index_columns=["entity"]) == []  # one row is unique
    repeated = table.with_columns(date=pl.lit(1))
    (unknown,) = _judge(repeated)
    assert "nor that any other columns do" in unknown.description
    found = find_breaches(
        _profile(repeated.drop("date"), ("entity",)),
        complete_contract({"index_columns": ["entity"]}),
        "value",
    )
    assert found == []


def test_a_profile_is_exact_and_never_too_large() -> None:
    described = describe(_table(-9.0, 0.5, None, NAN, INF), ("date",))
    assert described is not None
    date, entity, value = described.columns
    assert (described.row_count, list(described.key_columns)) == (5, ["date"])
    assert (date.name, date.is_numeric, date.min_value, date.max_value) == ("date", True, 0, 4)
    assert (entity.type, entity.is_numeric, entity.HasField("min_value")) == ("String", False, False)
    assert (value.null_count, value.nan_count, value.infinite_count) == (1, 1, 1)
    assert (value.min_value, value.max_value) == (-9.0, 0.5)
    assert describe(pl.DataFrame({f"column_{number}": [1.0] for number in range(3000)}), ()) is None
    assert describe(pl.DataFrame({"a\0b": [1.0]}), ()) is None
