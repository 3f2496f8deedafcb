"""What a backtest is told: its defaults, and the limits that the contract sets."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from buf.validate import validate_pb2
from optaic.instance.v1.spec_pb2 import BacktestConfig

EQUAL_WEIGHT = "equal_weight"  # the benchmark where none is named


@dataclass(frozen=True)
class Defaults:
    """The settings of `BacktestConfig` that hold where a backtest says none; the slippage rate goes by the model."""

    rebalance_frequency: str = "monthly"
    transaction_costs: float = 0.001
    slippage_model: str = "none"
    top_n: int = 5
    initial_capital: float = 1_000_000.0
    primary_weight: float = 1.0
    execution_lag: int = 1


# Fingerprints and the worker read the same defaults: one that changes makes stale what relies on it.
DEFAULTS = Defaults()
SLIPPAGE_RATES: Mapping[str, float] = {"none": 0.0, "fixed": 0.0005, "linear": 0.1}


@dataclass(frozen=True)
class Limits:
    """The numbers that a setting may have: from `minimum` to `maximum`, both included, and less than `below`."""

    minimum: float = -math.inf
    maximum: float = math.inf
    below: float = math.inf


def limits_of(setting: str) -> Limits:
    """Return the limits of a number in `BacktestConfig`, as its field in the contract has them."""
    options = BacktestConfig.DESCRIPTOR.fields_by_name[setting].GetOptions()
    rules = options.Extensions[validate_pb2.field]
    numbers = getattr(rules, rules.WhichOneof("type") or "")
    given = {rule.name: value for rule, value in numbers.ListFields()}
    if "const" in given:
        return Limits(given["const"], given["const"])
    return Limits(given.get("gte", -math.inf), given.get("lte", math.inf), given.get("lt", math.inf))


def complete_config(given: Mapping[str, Any]) -> dict[str, Any]:
    """Return the settings of a backtest with the defaults filled in; saying a default changes nothing."""
    config = asdict(DEFAULTS) | {name: value for name, value in given.items() if value not in ("", None)}
    model = config["slippage_model"]
    if model == "none":  # a rate that nothing uses
        config.pop("slippage_rate", None)
    if model in SLIPPAGE_RATES:
        config.setdefault("slippage_rate", SLIPPAGE_RATES[model])
    return config
