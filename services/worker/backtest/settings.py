"""The settings of a backtest, with a default for each, from a plain mapping."""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from optaic.plugins import InvalidConfig
from optaic.rules.backtests import (
    BY_OPTIMIZER,
    CARRY,
    DEFAULTS,
    DROP_SESSION,
    EQUAL_WEIGHT,
    FIRST_PROCEDURE,
    NEWEST_DEFAULTS,
    NEWEST_SLIPPAGE_RATES,
    SLIPPAGE_RATES,
    complete_config,
    limits_of,
    optimizer_conflicts,
)
from worker.builtin.parameters import (
    read_choice,
    read_date,
    read_flag,
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
    VOLUME = "volume"  # rate x (shares traded / volume of the session, at most 1) x |trade|


class MissingPrices(StrEnum):
    """The treatment of members without a close."""

    CARRY = CARRY  # it is valued at its last close
    DROP_SESSION = DROP_SESSION  # the date is no session


class Weighting(StrEnum):
    """The rule by which the chosen entities share a side."""

    EQUAL = "equal"
    SIGNAL = "signal"  # by the distance of the score from the mean of all that may be chosen
    OPTIMIZER = BY_OPTIMIZER  # as an optimizer decides


FIXED_RATE = NEWEST_SLIPPAGE_RATES[Slippage.FIXED]  # where a volume is unknown
_MISSING, _WEIGHTING = MissingPrices(NEWEST_DEFAULTS.missing_prices), Weighting(NEWEST_DEFAULTS.weighting)
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
    procedure: int = FIRST_PROCEDURE
    # The others are settings of the newest procedure.
    missing_prices: MissingPrices = _MISSING
    min_session_coverage: float = NEWEST_DEFAULTS.min_session_coverage
    delisting_after: int = NEWEST_DEFAULTS.delisting_after  # sessions after the last close
    delisting_return: float = NEWEST_DEFAULTS.delisting_return
    weighting: Weighting = _WEIGHTING
    long_short: bool = NEWEST_DEFAULTS.long_short
    offered: int | None = None  # how many of the highest values an optimizer gets; None: all

    @classmethod
    def from_spec(cls, spec: Mapping[str, object], *, has_optimizer: bool = False) -> BacktestSettings:
        """Read settings from `{assets: {universe, benchmark}, date_range: {start, end}, config: {...}}`.

        Raises:
            InvalidConfig: a value is of a wrong type or out of bounds, the range ends before it starts, or a setting does not
                fit the backtest's having an optimizer or not.
        """
        assets, dates, given = (read_section(spec, name) for name in ("assets", "date_range", "config"))
        for setting, problem in optimizer_conflicts(given, has_optimizer=has_optimizer):
            raise InvalidConfig(f"config.{setting}: {problem}")
        config = complete_config(given, has_optimizer=has_optimizer)
        procedure = _read_procedure(given)
        is_first = procedure == FIRST_PROCEDURE
        models = [*(SLIPPAGE_RATES if is_first else NEWEST_SLIPPAGE_RATES)]
        model = Slippage(read_choice(config, "slippage_model", models))
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
            top_n=_read_whole(config, "top_n") if "top_n" in config else DEFAULTS.top_n,
            initial_capital=_read(config, "initial_capital"),
            primary_weight=_read(config, "primary_weight"),
            procedure=procedure,
            **({} if is_first else _read_newest(config)),
        )


def _read_procedure(given: Mapping[str, object]) -> int:
    limits = limits_of("procedure")
    return read_whole(
        given, "procedure", FIRST_PROCEDURE, minimum=int(limits.minimum), maximum=int(limits.maximum)
    )


def _read_newest(config: Mapping[str, object]) -> dict[str, Any]:
    """Read the settings that only the newest procedure has."""
    return {
        "missing_prices": MissingPrices(read_choice(config, "missing_prices", [*MissingPrices])),
        "min_session_coverage": _read(config, "min_session_coverage"),
        "delisting_after": _read_whole(config, "delisting_after"),
        "delisting_return": _read(config, "delisting_return"),
        "weighting": Weighting(read_choice(config, "weighting", [*Weighting])),
        "long_short": read_flag(config, "long_short"),
        "offered": _read_whole(config, "top_n") if _offers_few(config) else None,
    }


def _offers_few(config: Mapping[str, object]) -> bool:
    return config["weighting"] == BY_OPTIMIZER and "top_n" in config


def _read(config: Mapping[str, object], setting: str) -> float:
    limits = limits_of(setting)
    value = read_number(config, setting, minimum=limits.minimum, maximum=limits.maximum)
    if value >= limits.below:
        raise InvalidConfig(f"{setting}: must be less than {limits.below:g}, not {value:g}")
    return value


def _read_whole(config: Mapping[str, object], setting: str) -> int:
    limits = limits_of(setting)
    return read_whole(config, setting, minimum=int(limits.minimum), maximum=int(limits.maximum))
