"""The settings of a backtest: their defaults in each procedure, and the limits that the contract sets."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from typing import Any

from buf.validate import validate_pb2
from optaic.instance.v1.spec_pb2 import BacktestConfig

EQUAL_WEIGHT = "equal_weight"  # the benchmark if none is named
FIRST_PROCEDURE = 1  # of a backtest that names none: it is older than the choice
NEWEST_PROCEDURE = 2  # of a backtest that is created without one
CARRY, DROP_SESSION = "carry", "drop_session"
VOLUME = "volume"  # the slippage model that only the newest procedure has
BY_OPTIMIZER = "optimizer"  # the weighting of a backtest with an optimizer


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


@dataclass(frozen=True)
class NewestDefaults:
    """The defaults of the fields that only the newest procedure has."""

    missing_prices: str = CARRY
    min_session_coverage: float = 0.5
    delisting_after: int = 21
    delisting_return: float = 0.0
    weighting: str = "equal"
    long_short: bool = False


# Fingerprints and the worker read the same defaults. A released default never changes: docs/decisions.md says why.
DEFAULTS = Defaults()
NEWEST_DEFAULTS = NewestDefaults()
SLIPPAGE_RATES: Mapping[str, float] = {"none": 0.0, "fixed": 0.0005, "linear": 0.1}
NEWEST_SLIPPAGE_RATES: Mapping[str, float] = {"none": 0.0, "fixed": 0.0005, "linear": 0.005, VOLUME: 0.1}
NEWEST_SETTINGS = tuple(asdict(NEWEST_DEFAULTS))


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


def procedure_of(given: Mapping[str, Any]) -> int:
    """Return the procedure of a backtest's settings."""
    return int(given.get("procedure") or FIRST_PROCEDURE)


def optimizer_conflicts(given: Mapping[str, Any], *, has_optimizer: bool) -> Iterator[tuple[str, str]]:
    """Yield each of a backtest's settings that does not fit its having an optimizer or not, and what to do."""
    weighting = given.get("weighting") or (BY_OPTIMIZER if has_optimizer else "")
    if has_optimizer and procedure_of(given) == FIRST_PROCEDURE:
        yield (
            "procedure",
            (
                f"is {FIRST_PROCEDURE}, which has no optimizer; set it to {NEWEST_PROCEDURE}, which may change the results, or "
                "remove the upstream with the role optimizer"
            ),
        )
    if has_optimizer and weighting != BY_OPTIMIZER:
        yield (
            "weighting",
            (
                f"is {weighting}, so the optimizer would decide nothing; set it to {BY_OPTIMIZER}, or remove the upstream with "
                "the role optimizer"
            ),
        )
    if weighting == BY_OPTIMIZER and not has_optimizer:
        yield (
            "weighting",
            f"is {BY_OPTIMIZER}, and no upstream has the role optimizer; add one to upstream_refs, or choose another weighting",
        )
    if weighting == BY_OPTIMIZER and given.get("long_short"):
        yield (
            "long_short",
            (
                "cannot be true with an optimizer, which decides itself what is sold short; remove it, and let the optimizer's "
                "constraints allow negative weights"
            ),
        )


def complete_config(given: Mapping[str, Any], *, has_optimizer: bool = False) -> dict[str, Any]:
    """Return a backtest's settings with the defaults filled in; writing a default explicitly gives the same result.

    The first procedure does not stand in the result: backtests are older than the choice, and keep their fingerprints.
    An optimizer gets the values of all that may be chosen, unless `top_n` says how many: then it has no default.
    """
    said = {name: value for name, value in given.items() if value not in ("", None)}
    procedure = procedure_of(said)
    said.pop("procedure", None)
    config, rates = asdict(DEFAULTS), SLIPPAGE_RATES
    if procedure != FIRST_PROCEDURE:
        config |= {"procedure": procedure, **asdict(NEWEST_DEFAULTS)}
        rates = NEWEST_SLIPPAGE_RATES
        if has_optimizer:
            config["weighting"] = BY_OPTIMIZER
    config |= said
    if config.get("weighting") == BY_OPTIMIZER and "top_n" not in said:
        del config["top_n"]
    model = config["slippage_model"]
    if model == "none":  # without slippage, no rate is used
        config.pop("slippage_rate", None)
    if model in rates:
        config.setdefault("slippage_rate", rates[model])
    if config.get("missing_prices") == DROP_SESSION:  # which asks for every close
        config["min_session_coverage"] = NEWEST_DEFAULTS.min_session_coverage
    return config
