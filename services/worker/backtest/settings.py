"""What a backtest is told, with a default for everything; it reads a plain mapping and no protobuf."""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum

from optaic.plugins import InvalidConfig
from worker.builtin.parameters import (
    read_choice,
    read_date,
    read_names,
    read_number,
    read_section,
    read_text,
    read_whole,
)

EQUAL_WEIGHT = "equal_weight"


class Frequency(StrEnum):
    """How often target weights are decided."""

    DAILY = "daily"
    WEEKLY = "weekly"
    MONTHLY = "monthly"


class Slippage(StrEnum):
    """What a trade costs beyond commission."""

    NONE = "none"
    FIXED = "fixed"  # rate x |trade|
    LINEAR = "linear"  # rate x (|trade| / NAV) x |trade|


_DEFAULT_RATES: Mapping[Slippage, float] = {Slippage.NONE: 0.0, Slippage.FIXED: 0.0005, Slippage.LINEAR: 0.1}


@dataclass(frozen=True)
class BacktestSettings:
    """A validated specification."""

    universe: tuple[str, ...] = ()  # empty: every entity of the prices
    benchmark: str = EQUAL_WEIGHT  # or an entity
    start: dt.date | None = None  # None: the first session
    end: dt.date | None = None  # None: the last session
    rebalance_frequency: Frequency = Frequency.MONTHLY
    transaction_costs: float = 0.001  # commission, as a share of the traded value
    slippage_model: Slippage = Slippage.NONE
    slippage_rate: float = 0.0
    top_n: int = 5
    initial_capital: float = 1_000_000.0
    primary_weight: float = 1.0  # the secondary signals share the rest equally

    @classmethod
    def from_spec(cls, spec: Mapping[str, object]) -> BacktestSettings:
        """Settings from `{assets: {universe, benchmark}, date_range: {start, end}, config: {...}}`.

        Raises:
            InvalidConfig: a value is of a wrong type or out of bounds, or the range ends before it starts.
        """
        assets, dates, config = (read_section(spec, name) for name in ("assets", "date_range", "config"))
        model = Slippage(read_choice(config, "slippage_model", [*Slippage], Slippage.NONE))
        start, end = read_date(dates, "start"), read_date(dates, "end")
        if start and end and end < start:
            raise InvalidConfig(f"date_range: ends on {end}, before it starts on {start}")
        return cls(
            universe=read_names(assets, "universe"),
            benchmark=read_text(assets, "benchmark", EQUAL_WEIGHT),
            start=start,
            end=end,
            rebalance_frequency=Frequency(
                read_choice(config, "rebalance_frequency", [*Frequency], Frequency.MONTHLY)
            ),
            transaction_costs=read_number(config, "transaction_costs", 0.001, minimum=0.0, maximum=1.0),
            slippage_model=model,
            slippage_rate=read_number(
                config, "slippage_rate", _DEFAULT_RATES[model], minimum=0.0, maximum=10.0
            ),
            top_n=read_whole(config, "top_n", 5, minimum=1, maximum=100_000),
            initial_capital=read_number(config, "initial_capital", 1_000_000.0, minimum=0.01, maximum=1e15),
            primary_weight=read_number(config, "primary_weight", 1.0, minimum=0.0, maximum=1.0),
        )
