"""The first procedure gives every result to the last digit as it did when it was the only one."""

import json
from pathlib import Path

import pytest

from support.backtest_panels import CASES, digits, make_panel
from worker.backtest import BacktestSettings, run

GOLDEN = json.loads((Path(__file__).parent / "golden" / "procedure_1.json").read_text(encoding="utf-8"))


def test_every_case_has_its_digits() -> None:
    assert set(GOLDEN) == set(CASES)


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("said", [{}, {"procedure": 1}], ids=["unsaid", "said"])
def test_the_first_procedure_keeps_every_digit(name: str, said: dict[str, int]) -> None:
    prices, signals, spec = make_panel(name)
    found = run(
        prices, signals, BacktestSettings.from_spec({**spec, "config": {**spec.get("config", {}), **said}})
    )
    assert digits(found.metrics, found.tables) == GOLDEN[name]


@pytest.mark.parametrize("name", [name for name, case in CASES.items() if not case[3]])
@pytest.mark.parametrize("missing", ["carry", "drop_session"])
def test_a_panel_without_gaps_gives_every_procedure_the_same_path(name: str, missing: str) -> None:
    """The start is given, because the second procedure would begin where the signals do."""
    prices, signals, spec = make_panel(name)
    rate = BacktestSettings.from_spec(spec).slippage_rate
    config = {**spec.get("config", {}), "procedure": 2, "missing_prices": missing, "slippage_rate": rate}
    later = {**spec, "config": config, "date_range": {"start": "2019-01-01", **spec.get("date_range", {})}}
    first = run(prices, signals, BacktestSettings.from_spec(spec))
    second = run(prices, signals, BacktestSettings.from_spec(later))
    assert second.equity_curve["nav"].to_list() == first.equity_curve["nav"].to_list()
    assert second.equity_curve.equals(first.equity_curve)
    assert second.weights_history.equals(first.weights_history)
    assert second.trades.drop("reason").equals(first.trades)
    assert {name: second.metrics[name] for name in first.metrics} == first.metrics
