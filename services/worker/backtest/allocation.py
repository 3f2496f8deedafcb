"""Have an optimizer decide the weights at each decision, from the values and the returns that are known then."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import polars as pl

from optaic.plugins import Allocation, NoDataInRange, NoSolution, Optimizer, PluginInvalid
from optaic.rules.columns import DATE
from worker.backtest.eligibility import Choice, select_top
from worker.backtest.settings import BacktestSettings
from worker.backtest.tables import Matrix, Numbers, as_dates


@dataclass
class Allocations:
    """The weights of each decision that the optimizer made, and why it made no others."""

    choices: dict[int, Choice] = field(default_factory=dict)
    unsolved: list[tuple[int, str]] = field(
        default_factory=list
    )  # decision sessions, and what the optimizer said


def decide(optimizer: Optimizer, scores: Mapping[str, float], returns: pl.DataFrame) -> Allocation:
    """Return the optimizer's decision on the last date of the returns.

    Args:
        optimizer: configured.
        scores: by entity, all finite.
        returns: `date` and a column of returns for each of them, up to the date of the decision.

    Raises:
        PluginError: as the optimizer says; `PluginInvalid` if what it returns are no weights of these entities.
    """
    sessions = optimizer.sessions_needed()
    found = optimizer.optimize(scores, returns if sessions is None else returns.tail(sessions))
    name = type(optimizer).__name__
    if not isinstance(found, Allocation):
        raise PluginInvalid(f"{name} returned {type(found).__name__}, not an Allocation; correct the plugin")
    if strangers := sorted(set(found.weights) - set(scores)):
        raise PluginInvalid(
            f"{name} returned weights of {', '.join(strangers[:5])}, which have no score; correct the plugin"
        )
    for entity, weight in found.weights.items():
        if isinstance(weight, bool) or not isinstance(weight, int | float) or not math.isfinite(weight):
            raise PluginInvalid(
                f"{name} returned the weight {weight!r} of {entity}, which is no finite number; correct the plugin"
            )
    return found


def allocate(
    optimizer: Optimizer,
    scores: Matrix,
    decisions: Sequence[int],
    days: Numbers,
    history: pl.DataFrame,
    settings: BacktestSettings,
) -> Allocations:
    """Ask the optimizer at each decision session; it sees no return after it.

    A decision that can choose nobody is not asked for. One for which the optimizer finds no weights has no choice: the
    holdings stay.

    Args:
        optimizer: configured.
        scores: (sessions, members) NaN where a member may not be chosen.
        decisions: the sessions.
        days: of the sessions.
        history: `date` and a column of returns for each member, in the order of columns and of dates.
        settings: how many of the highest values the optimizer gets.

    Raises:
        PluginError: by what is wrong with the optimizer or its config; `NoSolution` if it never finds any weights.
    """
    names = history.columns[1:]
    known = history[DATE].to_physical().to_numpy()
    result = Allocations()
    for decision in decisions:
        row = scores[decision]
        offered = select_top(row, row.size if settings.offered is None else settings.offered)
        if not offered.size:
            continue
        until = int(np.searchsorted(known, days[decision], side="right"))
        values = {names[column]: float(row[column]) for column in np.sort(offered).tolist()}
        try:
            found = decide(optimizer, values, history.head(until))
        except (NoSolution, NoDataInRange) as error:
            result.unsolved.append((decision, str(error)))
            continue
        result.choices[decision] = _choice_of(np.array([found.weights.get(name, 0.0) for name in names]))
    if result.unsolved and not result.choices:
        first, why = result.unsolved[0]
        raise NoSolution(
            f"the optimizer found no weights at any of {len(result.unsolved)} decisions; at the first, on "
            f"{as_dates(days[first : first + 1])[0]}: {why}"
        )
    return result


def _choice_of(weights: Matrix) -> Choice:
    longs, shorts = np.flatnonzero(weights > 0.0), np.flatnonzero(weights < 0.0)
    return Choice(longs, shorts, weights[longs], -weights[shorts], are_weights=True)
