"""The settings of a backtest, with a default for each, from a plain mapping."""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum

from optaic.plugins import InvalidConfig
from optaic.rules.backtests import DEFAULTS, EQUAL_WEIGHT, complete_config, limits_of
from worker.builtin.parameters import (
    read_choice,
    read_date,
    read_names,
    read_number,
    read_section,
    read_text,
    read_whole,
)


class Frequency(StrEnum):
    """The frequency at which target weights are decided."""

    DAILY = "daily"
    WEEKLY = "weekly"
    MONTHLY = "monthly"


class Slippage(StrEnum):
    """The model of the cost of a trade beyond commission."""

    NONE = "none"
    FIXED = "fixed"  # rate x |trade|
    LINEAR = "linear"  # rate x (|trade| / NAV) x |trade|


_FREQUENCY, _SLIPPAGE = Frequency(DEFAULTS.rebalance_frequency), Slippage(DEFAULTS.slippage_model)


@dataclass(frozen=True)
class BacktestSettings:
    """A validated specification."""

    universe: tuple[str, ...] = ()  # empty: every entity of the prices
    benchmark: str = EQUAL_WEIGHT  # or an entity
    start: dt.date | None = None  # None: the first session
    end: dt.date | None = None  # None: the last session
    rebalance_frequency: Frequency = _FREQUENCY
    transaction_costs: float = DEFAULTS.transaction_costs  # commission, as a share of the traded value
    slippage_model: Slippage = _SLIPPAGE
    slippage_rate: float = 0.0
    top_n: int = DEFAULTS.top_n
    initial_capital: float = DEFAULTS.initial_capital
    primary_weight: float = DEFAULTS.primary_weight  # the secondary signals share the rest equally

    @classmethod
    def from_spec(cls, spec: Mapping[str, object]) -> BacktestSettings:
        """Read settings from `{assets: {universe, benchmark}, date_range: {start, end}, config: {...}}`.

        Raises:
            InvalidConfig: a value is of a wrong type or out of bounds, or the range ends before it starts.
        """
        assets, dates, given = (read_section(spec, name) for name in ("assets", "date_range", "config"))
        config = complete_config(given)
        model = Slippage(read_choice(config, "slippage_model", [*Slippage]))
        start, end = read_date(dates, "start"), read_date(dates, "end")
        if start and end and end < start:
            raise InvalidConfig(f"date_range: ends on {end}, before it starts on {start}; exchange them")
        return cls(
            universe=read_names(assets, "universe"),
            benchmark=read_text(assets, "benchmark", EQUAL_WEIGHT),
            start=start,
            end=end,
            rebalance_frequency=Frequency(read_choice(config, "rebalance_frequency", [*Frequency])),
            transaction_costs=_read(config, "transaction_costs"),
            slippage_model=model,
            slippage_rate=_read(config, "slippage_rate"),
            top_n=_read_whole(config, "top_n"),
            initial_capital=_read(config, "initial_capital"),
            primary_weight=_read(config, "primary_weight"),
        )


def _read(config: Mapping[str, object], setting: str) -> float:
    limits = limits_of(setting)
    value = read_number(config, setting, minimum=limits.minimum, maximum=limits.maximum)
    if value >= limits.below:
        raise InvalidConfig(f"{setting}: must be less than {limits.below:g}, not {value:g}")
    return value


def _read_whole(config: Mapping[str, object], setting: str) -> int:
    limits = limits_of(setting)
    return read_whole(config, setting, minimum=int(limits.minimum), maximum=int(limits.maximum))
