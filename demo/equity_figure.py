"""Draw a backtest's equity curve against its benchmark as a PNG; no metric is computed here."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import matplotlib as mpl
import numpy as np
import polars as pl
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, NullFormatter

_INK, _FAINT, _STRATEGY, _BENCHMARK, _LOSS = "#1f2933", "#9aa5b1", "#0b6e99", "#d9822b", "#c0392b"


def draw_equity(
    equity_curve: pl.DataFrame,
    path: Path,
    *,
    title: str = "Backtest",
    metrics: Mapping[str, float | None] | None = None,
) -> Path:
    """Write the picture.

    Args:
        equity_curve: `date, nav, benchmark`, at least one row, by date.
        path: where; its folder must exist.
        title: first line.
        metrics: public names and values; those that are known become the second line.
    """
    dates = equity_curve["date"].to_numpy()
    nav, benchmark = equity_curve["nav"].to_numpy(), equity_curve["benchmark"].to_numpy()
    # The object interface never touches pyplot's global state nor needs a display.
    with mpl.rc_context(
        {"font.size": 10, "text.color": _INK, "axes.labelcolor": _INK, "axes.edgecolor": _FAINT}
    ):
        figure = Figure(figsize=(10, 6.2), dpi=150, layout="constrained")
        top, bottom = figure.subplots(2, 1, sharex=True, height_ratios=[3, 1])
        _draw_curves(top, dates, nav, benchmark)
        _draw_drawdown(bottom, dates, nav, benchmark)
        figure.suptitle(title, x=0.01, ha="left", fontsize=15, fontweight="bold")
        top.set_title(_describe(metrics or {}), loc="left", fontsize=10, color="#52606d")
        figure.savefig(path, format="png", facecolor="white")
    return path


def _draw_curves(axes: Axes, dates: np.ndarray, nav: np.ndarray, benchmark: np.ndarray) -> None:
    axes.plot(dates, benchmark, color=_BENCHMARK, linewidth=1.3, label="Benchmark")
    axes.plot(dates, nav, color=_STRATEGY, linewidth=1.8, label="Strategy, after costs")
    axes.fill_between(dates, nav, benchmark, where=nav >= benchmark, color=_STRATEGY, alpha=0.08, linewidth=0)
    axes.fill_between(dates, nav, benchmark, where=nav < benchmark, color=_BENCHMARK, alpha=0.08, linewidth=0)
    axes.set_yscale("log")
    axes.yaxis.set_major_formatter(FuncFormatter(_format_money))
    low, high = min(nav.min(), benchmark.min()), max(nav.max(), benchmark.max())
    ticks = [base * 10.0**power for power in range(-2, 16) for base in (1, 1.5, 2, 3, 5, 7)]
    axes.set_yticks([tick for tick in ticks if low * 0.95 <= tick <= high * 1.05] or [float(low)])
    axes.yaxis.set_minor_formatter(NullFormatter())
    axes.minorticks_off()
    axes.set_ylabel("Net asset value (log scale)")
    axes.legend(loc="upper left", frameon=False)
    _tidy(axes)


def _draw_drawdown(axes: Axes, dates: np.ndarray, nav: np.ndarray, benchmark: np.ndarray) -> None:
    fall = nav / np.maximum.accumulate(nav) - 1.0
    axes.fill_between(dates, fall, 0.0, color=_LOSS, alpha=0.25, linewidth=0)
    axes.plot(dates, fall, color=_LOSS, linewidth=0.9)
    axes.plot(
        dates, benchmark / np.maximum.accumulate(benchmark) - 1.0, color=_BENCHMARK, linewidth=0.8, alpha=0.8
    )
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:.0%}"))
    axes.set_ylabel("Drawdown")
    axes.margins(x=0.01)
    _tidy(axes)


def _tidy(axes: Axes) -> None:
    axes.grid(axis="y", color="#e4e7eb", linewidth=0.8)
    axes.set_axisbelow(True)
    axes.spines[["top", "right", "left"]].set_visible(False)
    axes.tick_params(colors=_INK, length=0)


def _format_money(value: float, _: int) -> str:
    for size, unit in ((1e9, "bn"), (1e6, "m"), (1e3, "k")):
        if value >= size:
            return f"{value / size:g}{unit}"
    return f"{value:g}"


def _describe(metrics: Mapping[str, float | None]) -> str:
    shown = {
        "annualized_return": "{:+.1%} a year",
        "benchmark_annualized_return": "benchmark {:+.1%}",
        "volatility": "volatility {:.1%}",
        "sharpe_ratio": "Sharpe {:.2f}",
        "max_drawdown": "max drawdown {:.1%}",
        "turnover": "turnover {:.1f}x",
    }
    values = {name: metrics.get(name) for name in shown}
    return "   ·   ".join(
        text.format(values[name]) for name, text in shown.items() if values[name] is not None
    )
