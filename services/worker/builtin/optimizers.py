"""Define optimizers on skfolio: scores choose the entities, past returns give their risk; nothing is stored here."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import numpy as np
import polars as pl
from skfolio import RiskMeasure
from skfolio.moments import BaseMu
from skfolio.optimization import (
    EqualWeighted,
    HierarchicalRiskParity,
    MeanRisk,
    ObjectiveFunction,
    RiskBudgeting,
)
from skfolio.prior import EmpiricalPrior

from optaic.plugins import Allocation, InvalidConfig, NoDataInRange, NoSolution, Optimizer, SchemaMismatch
from optaic.plugins.words import describe_error
from optaic.rules.columns import DATE, ENTITY, KEYS
from worker.builtin.parameters import read_choice, read_number, read_whole

_SESSIONS_A_YEAR = 252
_FEWEST_RETURNS = 20
_CONSTRAINTS = ("min_weight", "max_weight")
_RISK_MEASURES = {
    "variance": RiskMeasure.VARIANCE,
    "semi_variance": RiskMeasure.SEMI_VARIANCE,
    "cvar": RiskMeasure.CVAR,
}


class GivenMu(BaseMu):  # type: ignore[misc]  # untyped
    """Expected returns that come from elsewhere, where skfolio would estimate them from the past."""

    def __init__(self, mu: Sequence[float] = ()) -> None:
        self.mu = mu

    def fit(self, X: Any, y: Any = None) -> GivenMu:  # noqa: N803 - scikit-learn's names
        """Do nothing: this estimator has nothing to learn."""
        del X, y
        self.mu_ = np.asarray(self.mu, dtype=float)
        return self


class SkfolioOptimizer(Optimizer):
    """The common part of the optimizers: choosing entities, selecting returns, and checking the weights.

    Config: `top_n` (all that have a score) and `lookback` (252 sessions). Constraints: `min_weight` (0), `max_weight`
    (1). The weights sum to 1.
    """

    constraints_known: ClassVar[tuple[str, ...]] = _CONSTRAINTS

    @abstractmethod
    def _estimator(self, scores: Any, returns: Any) -> Any:
        """Return the configured estimator for the chosen entities."""

    def optimize(self, scores: Mapping[str, float], returns: pl.DataFrame) -> Allocation:
        """Compute the weights of the chosen entities."""
        if unknown := sorted(set(self.constraints) - set(self.constraints_known)):
            known = ", ".join(self.constraints_known) or "none"
            raise InvalidConfig(f"constraints: {', '.join(unknown)} are unknown; the constraints are {known}")
        chosen = self._choose(scores)
        low, high = self._limits()
        if low * len(chosen) > 1.0 + 1e-9 or high * len(chosen) < 1.0 - 1e-9:
            raise NoSolution(
                f"{len(chosen)} weights between {low:g} and {high:g} cannot sum to 1; "
                "change constraints.min_weight or constraints.max_weight"
            )
        past = self._past(returns, chosen)
        alone = len(chosen) == 1
        weights = np.ones(1) if alone else self._solve([scores[name] for name in chosen], past)
        daily = past @ weights
        return Allocation(
            weights={name: float(weight) for name, weight in zip(chosen, weights, strict=True)},
            diagnostics={
                "sessions": float(len(past)),
                "volatility": float(daily.std(ddof=1) * np.sqrt(_SESSIONS_A_YEAR)),
                "effective_count": float(1.0 / np.square(weights).sum()),
                "concentration": float(np.abs(weights).max()),
                "gross_exposure": float(np.abs(weights).sum()),
                "net_exposure": float(weights.sum()),
            },
        )

    def _choose(self, scores: Mapping[str, float]) -> list[str]:
        known = [name for name, score in scores.items() if score is not None and np.isfinite(score)]
        if not known:
            raise NoDataInRange("scores: no entity has a finite score; give at least one")
        count = read_whole(self.config, "top_n", len(known), minimum=1, maximum=100_000)
        return sorted(sorted(known, key=lambda name: (-scores[name], name))[:count])

    def _past(self, returns: pl.DataFrame, chosen: Sequence[str]) -> Any:
        if missing := [name for name in chosen if name not in returns.columns]:
            raise SchemaMismatch(
                f"returns: no column for {', '.join(missing)}; add their returns, or leave them out of the scores"
            )
        lookback = read_whole(self.config, "lookback", 252, minimum=_FEWEST_RETURNS, maximum=100_000)
        table = returns.sort(DATE).tail(lookback).select(pl.col(name).cast(pl.Float64) for name in chosen)
        past = table.drop_nulls().to_numpy()
        past = past[np.isfinite(past).all(axis=1)]
        if len(past) < _FEWEST_RETURNS:
            raise NoDataInRange(
                f"returns: only {len(past)} sessions have returns of all chosen entities, and {_FEWEST_RETURNS} are needed; "
                "give a longer history, or set a lower top_n"
            )
        return past

    def _limits(self) -> tuple[float, float]:
        low = read_number(self.constraints, "min_weight", 0.0, minimum=-1.0, maximum=1.0)
        high = read_number(self.constraints, "max_weight", 1.0, minimum=-1.0, maximum=1.0)
        if low > high:
            raise InvalidConfig("constraints.min_weight: must not be above max_weight")
        return low, high

    def _solve(self, scores: Sequence[float], past: Any) -> Any:
        estimator = self._estimator(np.asarray(scores, dtype=float), past)
        try:
            estimator.fit(past)
        except Exception as error:  # solvers and skfolio raise types of their own for what has no solution
            raise NoSolution(describe_error(error)) from error
        weights = np.asarray(estimator.weights_, dtype=float)
        if not np.isfinite(weights).all():
            raise NoSolution("the solver found no weights; relax the constraints")
        return weights


class MeanVarianceOptimizer(SkfolioOptimizer):
    """Expected return against variance; a score of 1 means an expected return of `skill` standard deviations.

    Config: `risk_aversion` (1) and `skill` (0.05), the assumed correlation of scores and later returns.
    """

    def _estimator(self, scores: Any, returns: Any) -> Any:
        spread = scores.std(ddof=1)
        standard = (scores - scores.mean()) / spread if spread > 0 else np.zeros(len(scores))
        skill = read_number(self.config, "skill", 0.05, minimum=0.0, maximum=1.0)
        low, high = self._limits()
        return MeanRisk(
            objective_function=ObjectiveFunction.MAXIMIZE_UTILITY,
            risk_measure=RiskMeasure.VARIANCE,
            risk_aversion=read_number(self.config, "risk_aversion", 1.0, minimum=1e-6, maximum=1e6),
            prior_estimator=EmpiricalPrior(
                mu_estimator=GivenMu(skill * standard * returns.std(axis=0, ddof=1))
            ),
            min_weights=low,
            max_weights=high,
        )


class MinimumCVaROptimizer(SkfolioOptimizer):
    """An optimizer with the least expected loss in the worst sessions. Config: `beta` (0.95)."""

    def _estimator(self, scores: Any, returns: Any) -> Any:
        del scores, returns
        low, high = self._limits()
        return MeanRisk(
            objective_function=ObjectiveFunction.MINIMIZE_RISK,
            risk_measure=RiskMeasure.CVAR,
            cvar_beta=read_number(self.config, "beta", 0.95, minimum=0.5, maximum=0.999),
            min_weights=low,
            max_weights=high,
        )


class RiskBudgetingOptimizer(SkfolioOptimizer):
    """An optimizer with equal risk from every entity. Config: `risk_measure` (variance). No shorts."""

    def _estimator(self, scores: Any, returns: Any) -> Any:
        del scores, returns
        low, high = self._limits()
        if low < 0:
            raise InvalidConfig(
                "constraints.min_weight: must not be negative; risk budgeting has no short positions"
            )
        return RiskBudgeting(risk_measure=_read_risk_measure(self.config), min_weights=low, max_weights=high)


class HierarchicalRiskParityOptimizer(SkfolioOptimizer):
    """An optimizer that splits risk down a tree of correlated entities. Config: `risk_measure` (variance); no shorts."""

    def _estimator(self, scores: Any, returns: Any) -> Any:
        del scores, returns
        low, high = self._limits()
        if low < 0:
            raise InvalidConfig(
                "constraints.min_weight: must not be negative; hierarchical risk parity has no short positions"
            )
        return HierarchicalRiskParity(
            risk_measure=_read_risk_measure(self.config), min_weights=low, max_weights=high
        )


class EqualWeightOptimizer(SkfolioOptimizer):
    """An optimizer with the same weight for each chosen entity; it has no constraints."""

    constraints_known = ()

    def _estimator(self, scores: Any, returns: Any) -> Any:
        del scores, returns
        return EqualWeighted()


def returns_of(prices: pl.DataFrame, column: str = "close") -> pl.DataFrame:
    """Compute `date` and a column of simple returns for each entity from `date, entity, <column>`.

    Raises:
        SchemaMismatch: a column is missing.
    """
    if missing := [name for name in (*KEYS, column) if name not in prices.columns]:
        raise SchemaMismatch(f"no column {', '.join(missing)} (the columns are {', '.join(prices.columns)})")
    wide = prices.pivot(on=ENTITY, index=DATE, values=column).sort(DATE)
    closes = pl.exclude(DATE).cast(pl.Float64)
    return wide.select(DATE, closes / closes.shift(1) - 1.0).slice(1)


def _read_risk_measure(config: Mapping[str, object]) -> RiskMeasure:
    return _RISK_MEASURES[read_choice(config, "risk_measure", tuple(_RISK_MEASURES), "variance")]
