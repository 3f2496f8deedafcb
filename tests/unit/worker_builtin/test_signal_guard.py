"""A signal's contract over its values."""

import polars as pl
import pytest

from optaic.plugins import GuardrailViolated, InvalidConfig, SchemaMismatch
from worker.builtin.signal_guard import BoundsPolicy, NanPolicy, SignalContract, guard_signal

NAN, INF = float("nan"), float("inf")


def signal(*values: float | None) -> pl.DataFrame:
    return pl.DataFrame(
        {
            "date": range(len(values)),
            "entity": ["a"] * len(values),
            "value": pl.Series(values, dtype=pl.Float64, strict=False),
        }
    )


def test_values_within_bounds_pass_unchanged() -> None:
    guarded = guard_signal(signal(-3.0, 0.0, 3.0), SignalContract(-3.0, 3.0))
    assert guarded.table.equals(signal(-3.0, 0.0, 3.0))
    assert (guarded.null_count, guarded.winsorized_count) == (0, 0)


def test_winsorizing_clips_and_counts() -> None:
    contract = SignalContract(-3.0, 3.0, bounds_policy=BoundsPolicy.WINSORIZE)
    guarded = guard_signal(signal(-4.0, None, 5.0, INF, 1.0), contract)
    assert guarded.table["value"].to_list() == [-3.0, None, 3.0, 3.0, 1.0]
    assert (guarded.null_count, guarded.winsorized_count) == (1, 3)


def test_rejecting_names_how_many_and_the_first_row() -> None:
    with pytest.raises(GuardrailViolated, match=r"2 values outside \[-3.0, None\], the first in row 1"):
        guard_signal(signal(-4.0, -5.0, 99.0), SignalContract(minimum=-3.0))


@pytest.mark.parametrize(
    ("policy", "expected"),
    [(NanPolicy.KEEP, [1.0, None, None]), (NanPolicy.DROP, [1.0]), (NanPolicy.NEUTRAL, [1.0, 0.5, 0.5])],
)
def test_absent_signal_values_are_handled_by_the_nan_policy(
    policy: NanPolicy, expected: list[float | None]
) -> None:
    guarded = guard_signal(signal(1.0, None, NAN), SignalContract(neutral_value=0.5, nan_policy=policy))
    assert guarded.table["value"].to_list() == expected
    assert guarded.null_count == 2


def test_absent_values_can_be_refused() -> None:
    with pytest.raises(GuardrailViolated, match="2 rows without a value"):
        guard_signal(signal(1.0, None, NAN), SignalContract(nan_policy=NanPolicy.FAIL))


def test_infinity_is_outside_every_bound_and_refused_without_any() -> None:
    with pytest.raises(GuardrailViolated, match="infinite"):
        guard_signal(signal(1.0, -INF), SignalContract())
    with pytest.raises(GuardrailViolated, match="infinite"):
        guard_signal(signal(1.0, -INF), SignalContract(maximum=3.0, bounds_policy=BoundsPolicy.WINSORIZE))


def test_a_contract_that_contradicts_itself_is_refused() -> None:
    with pytest.raises(InvalidConfig, match=r"^min_value: 1 is above max_value"):
        SignalContract(1.0, -1.0)
    with pytest.raises(InvalidConfig, match=r"^neutral_value: is required by the nan_policy NEUTRAL"):
        SignalContract(nan_policy=NanPolicy.NEUTRAL)
    with pytest.raises(InvalidConfig, match=r"^neutral_value: 0 is not between 1 and 2"):
        SignalContract(1.0, 2.0, neutral_value=0.0, nan_policy=NanPolicy.NEUTRAL)


def test_the_index_must_be_there_and_unique() -> None:
    with pytest.raises(SchemaMismatch, match="'entity'"):
        guard_signal(signal(1.0).drop("entity"), SignalContract())
    with pytest.raises(SchemaMismatch, match="'value'"):
        guard_signal(signal(1.0).rename({"value": "x"}), SignalContract())
    with pytest.raises(SchemaMismatch, match="several rows"):
        guard_signal(signal(1.0).vstack(signal(2.0)), SignalContract())
    with pytest.raises(SchemaMismatch, match="not numeric"):
        guard_signal(signal(1.0).with_columns(value=pl.lit("x")), SignalContract())
    guarded = guard_signal(signal(1.0).rename({"value": "score"}), SignalContract(value_column="score"))
    assert guarded.table["score"].to_list() == [1.0]


def test_an_empty_or_all_null_signal_passes_unless_refused() -> None:
    assert guard_signal(signal().clear(), SignalContract(-1.0, 1.0)).table.is_empty()
    only_null = signal(1.0).with_columns(value=pl.lit(None))
    assert guard_signal(only_null, SignalContract(-1.0, 1.0)).table["value"].to_list() == [None]
