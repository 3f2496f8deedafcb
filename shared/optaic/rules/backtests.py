"""The settings of a backtest: their defaults, and the limits that the contract sets."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from buf.validate import validate_pb2
from optaic.instance.v1.spec_pb2 import BacktestConfig

EQUAL_WEIGHT = "equal_weight"  # the benchmark if none is named


@dataclass(frozen=True)
class Defaults:
    """The defaults of the fields of `BacktestConfig`; that of the slippage rate depends on the slippage model."""

    rebalance_frequency: str = "monthly"
    transaction_costs: float = 0.001
    slippage_model: str = "none"
    top_n: int = 5
    initial_capital: float = 1_000_000.0
    primary_weight: float = 1.0
    execution_lag: int = 1


# Fingerprints and the worker read the same defaults. A released default never changes: docs/decisions.md says why.
DEFAULTS = Defaults()
SLIPPAGE_RATES: Mapping[str, float] = {"none": 0.0, "fixed": 0.0005, "linear": 0.1}


@dataclass(frozen=True)
class Limits:
    """The limits of a number: from `minimum` to `maximum`, both included, and less than `below`."""

    minimum: float = -math.inf
    maximum: float = math.inf
    below: float = math.inf


def limits_of(setting: str) -> Limits:
    """Return the limits that the contract sets for a number in `BacktestConfig`."""
    options = BacktestConfig.DESCRIPTOR.fields_by_name[setting].GetOptions()
    rules = options.Extensions[validate_pb2.field]
    numbers = getattr(rules, rules.WhichOneof("type") or "")
    given = {rule.name: value for rule, value in numbers.ListFields()}
    if "const" in given:
        return Limits(given["const"], given["const"])
    return Limits(given.get("gte", -math.inf), given.get("lte", math.inf), given.get("lt", math.inf))


def complete_config(given: Mapping[str, Any]) -> dict[str, Any]:
    """Return a backtest's settings with the defaults filled in; writing a default explicitly gives the same result."""
    config = asdict(DEFAULTS) | {name: value for name, value in given.items() if value not in ("", None)}
    model = config["slippage_model"]
    if model == "none":  # without slippage, no rate is used
        config.pop("slippage_rate", None)
    if model in SLIPPAGE_RATES:
        config.setdefault("slippage_rate", SLIPPAGE_RATES[model])
    return config
