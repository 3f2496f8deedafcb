"""Define optimizers on skfolio: scores choose the entities, past returns give their risk; nothing is stored here."""

from __future__ import annotations

import warnings
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
from optaic.rules.columns import DATE
from worker.builtin.parameters import read_choice, read_number, read_whole

_SESSIONS_A_YEAR = 252
_FEWEST_RETURNS = 20
_ROUNDING = 1e-9
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
        low, high = self._limits()
        scored = self._known(scores)
        window = self._window(returns, scored)
        enough = [name for name in scored if window[name].count() >= _FEWEST_RETURNS]
        chosen = self._choose(scores, enough or scored)
        _check_budget(len(chosen), low, high)
        past = self._past(window, chosen)
        weights, status = np.ones(1), "optimal"
        if len(chosen) > 1:
            weights, status = self._solve([scores[name] for name in chosen], past)
        daily = past @ weights
        return Allocation(
            weights={name: float(weight) for name, weight in zip(chosen, weights, strict=True)},
            diagnostics={
                "solver_status": status,
                "sessions": float(len(past)),
                "entities_without_history": float(len(scored) - len(enough)),
                "volatility": float(daily.std(ddof=1) * np.sqrt(_SESSIONS_A_YEAR)),
                "effective_count": float(1.0 / np.square(weights).sum()),
                "concentration": float(np.abs(weights).max()),
                "gross_exposure": float(np.abs(weights).sum()),
                "net_exposure": float(weights.sum()),
            },
        )

    def sessions_needed(self) -> int:
        """Return the lookback."""
        return read_whole(self.config, "lookback", 252, minimum=_FEWEST_RETURNS, maximum=100_000)

    def _known(self, scores: Mapping[str, float]) -> list[str]:
        known = [name for name, score in scores.items() if score is not None and np.isfinite(score)]
        if not known:
            raise NoDataInRange("scores: no entity has a finite score; give at least one")
        return known

    def _choose(self, scores: Mapping[str, float], names: Sequence[str]) -> list[str]:
        count = read_whole(self.config, "top_n", len(names), minimum=1, maximum=100_000)
        return sorted(sorted(names, key=lambda name: (-scores[name], name))[:count])

    def _window(self, returns: pl.DataFrame, names: Sequence[str]) -> pl.DataFrame:
        """Return the past sessions that count, null where a return is not finite."""
        if missing := [name for name in names if name not in returns.columns]:
            raise SchemaMismatch(
                f"returns: no column for {', '.join(missing)}; add their returns, or leave them out of the scores"
            )
        column = pl.col(list(names)).cast(pl.Float64)
        return (
            returns.sort(DATE).tail(self.sessions_needed()).select(pl.when(column.is_finite()).then(column))
        )

    def _past(self, window: pl.DataFrame, chosen: Sequence[str]) -> Any:
        past = window.select(chosen).drop_nulls().to_numpy()
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

    def _solve(self, scores: Sequence[float], past: Any) -> tuple[Any, str]:
        """Return the weights and the solver's status."""
        estimator = self._estimator(np.asarray(scores, dtype=float), past)
        limits = ", ".join(f"constraints.{name}" for name in self.constraints) or "the constraints"
        try:
            with warnings.catch_warnings(record=True) as said:
                warnings.simplefilter("always")
                estimator.fit(past)
        except Exception as error:  # solvers and skfolio raise types of their own for what has no solution
            raise NoSolution(
                f"the solver found no weights; relax {limits}: {describe_error(error)}"
            ) from error
        weights = np.asarray(estimator.weights_, dtype=float)
        if not np.isfinite(weights).all():
            raise NoSolution(f"the solver found no weights; relax {limits}")
        is_inaccurate = any("inaccurate" in str(one.message) for one in said)
        return weights, "optimal_inaccurate" if is_inaccurate else "optimal"


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


def _check_budget(count: int, low: float, high: float) -> None:
    """Refuse limits between which weights cannot sum to 1.

    Raises:
        NoSolution: naming the limit that binds.
    """
    if high * count < 1.0 - _ROUNDING:
        raise NoSolution(
            f"constraints.max_weight: {count} weights of at most {high:g} sum to at most {high * count:g}, and must sum to 1; "
            f"raise max_weight to at least {1.0 / count:.4g}, or give more entities (top_n, scores)"
        )
    if low * count > 1.0 + _ROUNDING:
        raise NoSolution(
            f"constraints.min_weight: {count} weights of at least {low:g} sum to at least {low * count:g}, and must sum to 1; "
            f"lower min_weight to at most {1.0 / count:.4g}, or give fewer entities (top_n)"
        )


def _read_risk_measure(config: Mapping[str, object]) -> RiskMeasure:
    return _RISK_MEASURES[read_choice(config, "risk_measure", tuple(_RISK_MEASURES), "variance")]
