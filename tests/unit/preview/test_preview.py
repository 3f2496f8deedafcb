"""Previews on generated panels: values, figures, samples and refusals, beside pandas and SciPy."""

import datetime as dt
import itertools
import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
import polars as pl
import pytest
from scipy import stats

from optaic.expression import MACROS, Parameter, Scope
from optaic.plugins import DateRange, InputTable, Operator, PluginError
from support.contract import ROOT, words_in
from worker.preview import Library, Preview, Slot, run, write_call
from worker.preview.figures import HORIZONS
from worker.preview.sample import take_sample

FIRST = dt.date(2024, 1, 1)
SESSIONS, ENTITIES = 60, 12


def day(number: int) -> dt.date:
    return FIRST + dt.timedelta(days=number)


def make_panel(gaps: float = 0.1, sessions: int = SESSIONS, entities: int = ENTITIES) -> pl.DataFrame:
    """Closes of which some rows are absent and some values missing."""
    numbers = np.random.default_rng(11)
    closes = 100 * np.exp(numbers.normal(0, 0.02, (sessions, entities)).cumsum(axis=0))
    rows = [
        (day(session), f"e{entity:02}", None if numbers.random() < gaps / 2 else closes[session, entity])
        for session in range(sessions)
        for entity in range(entities)
        if numbers.random() >= gaps / 2
    ]
    return pl.DataFrame(rows, schema=["date", "entity", "close"], orient="row")


def as_input(frame: pl.DataFrame, name: str = "panel", role: str = "input") -> InputTable:
    return InputTable(role=role, name=name, reader=lambda: frame, instance_id=name)


def momentum(**config: Any) -> Any:
    slots = [Slot(name) for name in MACROS["MOMENTUM"].parameters]
    return write_call("MOMENTUM", slots, {"x": "close", "long": 10.0, "short": 2, **config})


def preview(
    *tables: pl.DataFrame | InputTable,
    call: Any = None,
    universe: Sequence[str] = (),
    start: dt.date | None = None,
    end: dt.date | None = None,
    prices: pl.DataFrame | None = None,
    operators: Sequence[Operator] = (),
) -> Preview:
    return run(
        call or momentum(),
        [each if isinstance(each, InputTable) else as_input(each) for each in tables],
        Library(MACROS, {each.name: each for each in operators}),
        universe,
        DateRange(start, end),
        None if prices is None else as_input(prices, "closes", "prices"),
        lambda _fraction, _message: None,
    )


def wide(table: pl.DataFrame, column: str = "value") -> pd.DataFrame:
    return table.to_pandas().pivot_table(index="date", columns="entity", values=column, dropna=False)


def test_the_values_are_those_of_pandas_over_all_history() -> None:
    table = make_panel()
    closes = wide(table, "close")
    change = closes.shift(2) / closes.shift(10) - 1
    present = wide(table.with_columns(close=1.0), "close").notna()
    change = change.where(present)
    expected = change.sub(change.mean(axis=1), axis=0).div(change.std(axis=1), axis=0)
    found = preview(table, start=day(20), end=day(50), universe=["e03", "e07"])
    assert found.table.columns == ["date", "entity", "value"]
    for date, entity, value in found.table.iter_rows():
        wanted = expected.loc[pd.Timestamp(date), entity]
        assert (math.nan if value is None else value) == pytest.approx(wanted, rel=1e-9, nan_ok=True)
    assert set(found.table["entity"]) == {"e03", "e07"}
    assert (found.table["date"].min(), found.table["date"].max()) == (day(20), day(50))


def test_a_range_shows_the_rows_of_the_whole() -> None:
    table = make_panel()
    whole = preview(table).table
    part = preview(table, start=day(11), end=day(30)).table
    assert part.equals(whole.filter(pl.col("date").is_between(day(11), day(30))))
    assert part["value"].null_count() < part.height  # its first rows have had their warm-up


def test_the_figures_are_those_of_scipy_and_pandas() -> None:
    table = make_panel()
    found = preview(table, prices=table)
    values = found.table["value"].drop_nulls().to_numpy()
    frame = found.table.to_pandas()
    of_dates = wide(found.table)
    steps = [
        stats.spearmanr(pair[0], pair[1]).statistic
        for before, after in zip(of_dates.index[:-1], of_dates.index[1:], strict=True)
        if len((pair := of_dates.loc[[before, after]].dropna(axis=1).to_numpy())[0]) > 1
    ]
    expected = {
        "row_count": len(frame),
        "nan_share": frame["value"].isna().mean(),
        "mean": values.mean(),
        "std": values.std(ddof=1),
        "min": values.min(),
        "max": values.max(),
        "skewness": stats.skew(values),
        "kurtosis": stats.kurtosis(values),
        "dates": SESSIONS,
        "entities": ENTITIES,
        "mean_coverage": frame.groupby("date")["value"].apply(lambda day: day.notna().mean()).mean(),
        "rank_autocorrelation": np.mean(steps),
        "infinite_inputs": 0,
        "universe_without_rows": 0,
        "warm_up_sessions": 10,
        "dates_without_prices": 0,
        "unusable_closes": table["close"].null_count(),
    }
    assert {name: found.metrics[name] for name in expected} == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize("horizon", [1, 5, 21])
def test_later_returns_are_compared_with_the_values_of_each_date(horizon: int) -> None:
    table = make_panel()
    found = preview(table, prices=table, end=day(45))
    closes, values = wide(table, "close"), wide(found.table)
    later = (closes.shift(-horizon) / closes - 1).reindex(values.index)  # after the range's end too
    coefficients, of_dates = [], []
    for date in values.index:
        both = pd.DataFrame({"value": values.loc[date], "later": later.loc[date]}).dropna()
        if len(both) > 1:
            coefficients.append(stats.spearmanr(both["value"], both["later"]).statistic)
        if len(both) >= 5:
            quantile = np.ceil((5 * both["value"].rank(pct=True)).round(9)).astype(int)
            of_dates.append(both.groupby(quantile)["later"].mean())
    daily = np.array(coefficients)
    assert found.metrics[f"ic_dates_{horizon}"] == len(daily)
    assert found.metrics[f"ic_mean_{horizon}"] == pytest.approx(daily.mean())
    assert found.metrics[f"ic_std_{horizon}"] == pytest.approx(daily.std(ddof=1))
    t_statistic = stats.ttest_1samp(daily, 0).statistic
    assert found.metrics[f"ic_t_statistic_{horizon}"] == pytest.approx(t_statistic)
    quintiles = pd.concat(of_dates, axis=1).mean(axis=1)
    assert found.metrics[f"quintile_returns_{horizon}"] == pytest.approx(quintiles.sort_index().to_list())


def test_a_value_that_knows_the_next_return_has_the_coefficient_one() -> None:
    table = make_panel(gaps=0).sort("entity", "date")
    table = table.with_columns(
        foreseen=(pl.col("close").shift(-1).over("entity") / pl.col("close")).fill_null(1.0)
    )
    call = write_call("LOG", [Slot("x")], {"x": "foreseen"})
    found = preview(table, call=call, end=day(SESSIONS - 2), prices=table).metrics
    assert found["ic_mean_1"] == pytest.approx(1.0)
    assert found["ic_t_statistic_1"] is None  # all are equal
    quintiles = found["quintile_returns_1"]
    assert isinstance(quintiles, list)
    assert quintiles == sorted(quintiles)


def test_without_prices_there_are_no_figures_of_returns() -> None:
    assert not [name for name in preview(make_panel()).metrics if name.startswith(("ic_", "quintile_"))]


def test_the_page_lists_every_figure() -> None:
    section = (ROOT / "docs/runs.md").read_text().partition("\n## Preview\n")[2].partition("\n## ")[0]
    cells = [line.split("|")[1] for line in section.splitlines() if line.startswith("| `")]
    listed = {
        name.replace("_<h>", f"_{horizon}") for name in words_in(" ".join(cells)) for horizon in HORIZONS
    }
    table = make_panel()
    written = {*preview(table, prices=table).metrics, "first_date", "last_date", "warnings"}
    assert written - {"warnings"} <= listed
    errors = {"InvalidConfig", "InvalidExpression", "MissingInput", "UnknownEntity", "NoDataInRange"}
    others = {"SchemaMismatch", "OperatorFailed", "GuardrailViolated", "guardrail.<name>"}
    others |= {"preview", "preview_sample", "data"}
    assert listed - written == errors | others


@pytest.mark.parametrize(("height", "expected"), [(9, 9), (10, 10), (11, 10), (1000, 10)])
def test_a_sample_is_evenly_spaced_and_has_both_ends(height: int, expected: int) -> None:
    sample = take_sample(pl.DataFrame({"row": range(height)}), 10)["row"].to_list()
    assert len(sample) == expected
    assert (sample[0], sample[-1]) == (0, height - 1)
    gaps = {after - before for before, after in itertools.pairwise(sample)}
    assert max(gaps) - min(gaps) <= 1


def warnings_of(found: Preview) -> str:
    said = found.metrics["warnings"]
    assert isinstance(said, list)
    return " | ".join(said)


class Twin(Operator):
    """What fails, at one time or the other."""

    name = "TWIN"
    scope = Scope.TIME_SERIES
    parameters = (Parameter("when", 0, 2),)

    def compile(self, values: Sequence[pl.Expr], parameters: Sequence[float]) -> pl.Expr:
        """Raise as the number says."""
        if parameters[0] == 0:
            raise ZeroDivisionError("nothing to divide by")
        if parameters[0] == 1:
            return values[0].str.to_uppercase()
        raise PluginError("the vendor has no licence", type="NoLicence")


def twin(when: int) -> Any:
    return write_call("TWIN", [Slot("x"), Slot("when")], {"x": "close", "when": when})


@pytest.mark.parametrize(
    ("given", "kind", "said"),
    [
        ({"universe": ["nobody"]}, "UnknownEntity", "experiment.universe: the inputs have none of nobody"),
        (
            {"start": day(90)},
            "NoDataInRange",
            "experiment.date_range: the inputs have no rows from 2024-03-31",
        ),
        ({"end": day(-9)}, "NoDataInRange", "they have them from 2024-01-01 to 2024-02-29; change the range"),
        ({"call": momentum(x="clos")}, "InvalidExpression", "config.x: unknown column 'clos'; did you mean"),
        ({"call": momentum(x="close, 5")}, "InvalidExpression", "config.x: unexpected ','"),
        ({"call": momentum(x="MEAM(close, 5)")}, "InvalidExpression", "config.x: unknown operator 'MEAM'"),
        ({"call": momentum(long=-1)}, "InvalidExpression", "n of REF(x, n) must be between 0 and 10000"),
        ({"call": momentum(long=2.5)}, "InvalidExpression", "n of REF(x, n) must be a whole number"),
        ({"call": momentum(long="close")}, "InvalidExpression", "n of REF(x, n) must be a number"),
        (
            {"call": twin(0), "operators": [Twin()]},
            "OperatorFailed",
            "operator TWIN raised ZeroDivisionError",
        ),
        ({"call": twin(1), "operators": [Twin()]}, "OperatorFailed", "operator TWIN raised"),
        ({"call": twin(2), "operators": [Twin()]}, "NoLicence", "the vendor has no licence"),
    ],
)
def test_what_cannot_be_previewed_is_refused_by_its_field(
    given: dict[str, Any], kind: str, said: str
) -> None:
    with pytest.raises(PluginError) as refused:
        preview(make_panel(), **given)
    assert (refused.value.type, said in str(refused.value)) == (kind, True), str(refused.value)


@pytest.mark.parametrize(
    ("change", "kind", "said"),
    [
        (lambda table: table.drop("entity"), "SchemaMismatch", "input 'panel' has no column 'entity'"),
        (
            lambda table: pl.concat([table, table.head(1)]),
            "SchemaMismatch",
            "input 'panel': the input has several rows for one date and entity",
        ),
        (
            lambda table: table.with_columns(pl.lit("1").alias("close")),
            "SchemaMismatch",
            "input 'panel': column 'close' is text, not numeric",
        ),
        (lambda table: table.clear(), "NoDataInRange", "upstream_refs: the inputs have no rows"),
        (lambda table: table.with_columns(date=pl.lit(None, pl.Date)), "SchemaMismatch", "'date' has nulls"),
    ],
)
def test_an_input_that_cannot_be_read_is_refused_by_its_name(change: Any, kind: str, said: str) -> None:
    with pytest.raises(PluginError) as refused:
        preview(change(make_panel()))
    assert (refused.value.type, said in str(refused.value)) == (kind, True), str(refused.value)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda table: table.drop("close"), "prices 'closes': no column 'close'"),
        (lambda table: pl.concat([table, table.head(1)]), "prices 'closes': several rows for one date"),
        (
            lambda table: table.with_columns(pl.col("date").cast(pl.Datetime)),
            "'date' is Datetime in 'closes'",
        ),
        (lambda table: table.drop("entity"), "input 'closes' has no column 'entity'"),
    ],
)
def test_prices_that_cannot_be_read_are_refused(change: Any, said: str) -> None:
    table = make_panel(gaps=0)
    with pytest.raises(PluginError) as refused:
        preview(table, prices=change(table))
    assert (refused.value.type, said in str(refused.value)) == ("SchemaMismatch", True), str(refused.value)


def test_a_macro_that_reads_a_column_of_its_own_is_refused_where_no_input_has_it() -> None:
    macro = MACROS["MOMENTUM"].__class__("SPREAD", ("x",), "x - opening")
    library = Library({**MACROS, "SPREAD": macro}, {})
    call = write_call("SPREAD", [Slot("x")], {"x": "close"})
    with pytest.raises(PluginError, match="unknown column 'opening'") as refused:
        run(call, [as_input(make_panel())], library, (), DateRange(), None, lambda _fraction, _message: None)
    assert refused.value.type == "InvalidExpression"
    assert not str(refused.value).startswith("config.")


def test_a_preview_without_any_value_says_why_and_has_no_figures() -> None:
    found = preview(make_panel(), end=day(5), prices=make_panel())
    assert found.nan_share == 1.0
    assert set(vars(found.moments).values()) == {None}
    assert found.metrics["mean_coverage"] == 0.0
    unknown = ("mean", "skewness", "rank_autocorrelation", "ic_mean_1", "ic_std_5", "ic_t_statistic_21")
    assert {found.metrics[name] for name in unknown} == {None}
    assert found.metrics["quintile_returns_1"] == [None] * 5
    assert "no row has a value: a value may need up to 10 earlier sessions" in warnings_of(found)


def test_one_date_has_the_figures_that_one_date_can_have() -> None:
    table = make_panel(gaps=0)
    found = preview(table, start=day(30), end=day(30), prices=table)
    assert found.metrics["dates"] == 1
    assert found.metrics["std"] == pytest.approx(1.0)  # of z-scores
    assert found.metrics["ic_mean_1"] is not None
    unknown = ("rank_autocorrelation", "ic_std_1", "ic_t_statistic_1")
    assert {found.metrics[name] for name in unknown} == {None}
    assert "there is one date" in warnings_of(found)


def test_infinite_inputs_and_entities_without_rows_are_counted_and_said() -> None:
    table = make_panel(gaps=0).with_columns(
        pl.when(pl.col("date") == day(3)).then(math.inf).otherwise(pl.col("close")).alias("close")
    )
    found = preview(table, universe=["e01", "gone"], prices=table.filter(pl.col("date") != day(7)))
    assert found.metrics["infinite_inputs"] == found.metrics["unusable_closes"] == ENTITIES
    assert found.metrics["universe_without_rows"] == 1
    assert found.metrics["dates_without_prices"] == 1
    said = warnings_of(found)
    for text in ("values of the inputs are infinite", "entities of the universe", "no session of the prices"):
        assert text in said
    assert found.table["value"].is_infinite().sum() == 0


def test_a_column_that_two_inputs_have_is_read_by_its_name() -> None:
    table = make_panel(gaps=0)
    others = as_input(table.with_columns(pl.col("close") * 2), "other")
    found = preview(table, others, call=momentum(x="panel.close")).table
    assert found.equals(preview(table).table)
    with pytest.raises(PluginError, match=r"config\.x: several inputs have a column 'close'"):
        preview(table, others)


@pytest.mark.parametrize(
    ("config", "text"),
    [
        ({"x": "close", "n": 5.0}, "STD(close, n=5)"),
        ({"x": "close / 2", "n": 5, "min_periods": 3}, "STD(close / 2, n=5, min_periods=3)"),
        ({"x": 1.5, "n": 2, "group": "sector"}, "STD(1.5, n=2, group=sector)"),
        ({"x": -1e-20, "n": 2}, "STD(-1e-20, n=2)"),
    ],
)
def test_a_call_is_written_as_users_write_it(config: dict[str, Any], text: str) -> None:
    slots = [
        Slot("x"),
        Slot("n", has_keyword=True),
        Slot("min_periods", is_required=False, has_keyword=True),
        Slot("group", is_required=False, has_keyword=True),
    ]
    assert write_call("STD", slots, config).text == text


@pytest.mark.parametrize(
    ("config", "said"),
    [
        ({"n": 5}, "config.x: is required by STD"),
        ({"x": "close", "n": 5, "m": 1}, "config.m: STD has no such argument; it takes x, n"),
        ({"x": True, "n": 5}, "config.x: must be a number or an expression, not true"),
        ({"x": ["close"], "n": 5}, 'config.x: must be a number or an expression, not ["close"]'),
        ({"x": math.nan, "n": 5}, "config.x: must be a number or an expression"),
    ],
)
def test_arguments_that_no_call_has_are_refused(config: dict[str, Any], said: str) -> None:
    with pytest.raises(PluginError) as refused:
        write_call("STD", [Slot("x"), Slot("n")], config)
    assert (refused.value.type, said in str(refused.value)) == ("InvalidConfig", True), str(refused.value)
