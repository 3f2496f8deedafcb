"""The second backtest procedure once more, in plain pandas, sentence by sentence from docs/backtest.md.

It imports nothing of the product; tests compare the two. Slow and literal on purpose.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import pandas as pd

Weights = dict[str, float]


class NothingDecidedError(Exception):
    """Nobody may be chosen at any decision."""


class NoSessionError(Exception):
    """No date of the range is a session, or the benchmark begins after the first one."""


class CapitalGoneError(Exception):
    """The costs cannot be paid."""


@dataclass
class Expected:
    """What the recomputation found."""

    sessions: list[pd.Timestamp]
    nav: list[float] = field(default_factory=list)
    benchmark: list[float] = field(default_factory=list)
    trades: list[tuple[Any, ...]] = field(default_factory=list)  # date, decision or None, entity, value
    costs: float = 0.0
    executions: int = 0
    counts: dict[str, Any] = field(default_factory=dict)


@dataclass
class World:
    """The tables, cut to what the backtest trades."""

    closes: pd.DataFrame  # all dates of the members, NaN where there is no close
    volumes: Mapping[tuple[pd.Timestamp, str], float]
    signal: pd.DataFrame
    members: list[str]
    membership: set[tuple[pd.Timestamp, str]] | None
    config: Mapping[str, Any]

    def is_member(self, day: pd.Timestamp, name: str) -> bool:
        return self.membership is None or (day, name) in self.membership

    def __post_init__(self) -> None:
        self._close, self._score = (
            {(day, name): value for name in frame for day, value in frame[name].dropna().items()}
            for frame in (self.closes, self.signal)
        )

    def close(self, day: pd.Timestamp, name: str) -> float | None:
        return self._close.get((day, name))

    def score(self, day: pd.Timestamp, name: str) -> float | None:
        return self._score.get((day, name))

    def eligible(self, day: pd.Timestamp) -> list[str]:
        return [
            name
            for name in self.members
            if self.is_member(day, name)
            and self.score(day, name) is not None
            and self.close(day, name) is not None
        ]


DEFAULTS: Mapping[str, Any] = {
    "frequency": "monthly",
    "commission": 0.001,
    "slippage": "none",
    "rate": 0.0,
    "top_n": 5,
    "capital": 1_000_000.0,
    "missing": "carry",
    "coverage": 0.5,
    "delisting_after": 21,
    "delisting_return": 0.0,
    "weighting": "equal",
    "long_short": False,
    "benchmark": "equal_weight",
    "start": None,
    "end": None,
}


def recompute(
    prices: pd.DataFrame,
    signal: pd.DataFrame,
    *,
    universe: list[str] | None = None,
    membership: pd.DataFrame | None = None,
    **given: Any,
) -> Expected:
    """Run it on long frames: `date, entity, close[, volume]`, `date, entity, value`, `date, entity`."""
    config = {**DEFAULTS, **given}
    wide = prices.pivot_table(index="date", columns="entity", values="close").sort_index()
    listed = None
    members = sorted(universe or wide.columns)
    if membership is not None:
        listed = set(zip(membership["date"], membership["entity"], strict=True))
        members = sorted(set(membership["entity"]) & set(wide.columns))
    closes = wide[members].dropna(how="all")
    volumes = {}
    if "volume" in prices:
        volumes = dict(zip(zip(prices["date"], prices["entity"], strict=True), prices["volume"], strict=True))
    values = signal.pivot_table(index="date", columns="entity", values="value")
    world = World(closes, volumes, values, members, listed, config)
    sessions, left_out = _sessions(world)
    if not sessions:
        raise NoSessionError
    counts: dict[str, Any] = {"left_out": left_out}
    sessions, decisions, counts["before"], counts["warmup"] = _begin(world, sessions)
    expected = Expected(sessions, counts=counts)
    _simulate(world, expected, decisions, _delistings(world, expected))
    expected.benchmark = _benchmark(world, expected, wide)
    return expected


def _sessions(world: World) -> tuple[list[pd.Timestamp], int]:
    config, found, left_out = world.config, [], 0
    lives = {
        name: (world.closes[name].first_valid_index(), world.closes[name].last_valid_index())
        for name in world.members
    }
    for day in world.closes.loc[config["start"] : config["end"]].index:
        present = [name for name in world.members if world.close(day, name) is not None]
        if config["missing"] == "drop_session":
            needed = [name for name in world.members if world.is_member(day, name)]
            is_session = set(needed) <= set(present)
        else:
            alive = [
                name for name, (first, last) in lives.items() if first is not None and first <= day <= last
            ]
            is_session = len(present) / len(alive) >= config["coverage"]
        if is_session:
            found.append(day)
        else:
            left_out += 1
    return found, left_out


def _decisions(sessions: list[pd.Timestamp], frequency: str) -> list[pd.Timestamp]:
    def period(day: pd.Timestamp) -> object:
        if frequency == "daily":
            return day
        calendar = day.isocalendar()
        return (day.year, day.month) if frequency == "monthly" else (calendar.year, calendar.week)

    last = {period(day): day for day in sessions}
    return sorted({sessions[0], *last.values()})


def _begin(
    world: World, sessions: list[pd.Timestamp]
) -> tuple[list[pd.Timestamp], list[pd.Timestamp], int, int]:
    """Cut what comes before the first decision with enough to choose from, unless the start is given."""
    decisions = _decisions(sessions, world.config["frequency"])
    sides = 2 if world.config["long_short"] else 1
    enough, any_at_all = None, None
    for day in decisions:
        number = len(world.eligible(day))
        of_day = sum(world.is_member(day, name) for name in world.members)
        if number >= sides and any_at_all is None:
            any_at_all = day
        if number >= sides and number >= min(sides * world.config["top_n"], of_day):
            enough = day
            break
    first = enough if enough is not None else any_at_all
    if first is None:
        raise NothingDecidedError
    if world.config["start"] is not None:
        return sessions, decisions, 0, sessions.index(first)
    kept = [day for day in sessions if day >= first]
    return kept, [day for day in decisions if day >= first], len(sessions) - len(kept), 0


def _delistings(world: World, expected: Expected) -> dict[pd.Timestamp, dict[str, float]]:
    """Return who is sold on which session, and at what price."""
    sessions = expected.sessions
    found: dict[pd.Timestamp, dict[str, float]] = {}
    stale, sold = [], {}
    for name in world.members:
        last = world.closes[name].last_valid_index()
        if last is None or last < sessions[0]:
            continue
        later = [day for day in sessions if day > last]
        if later and len(later) >= world.config["delisting_after"]:
            price = float(world.closes.loc[last, name]) * (1 + world.config["delisting_return"])
            found.setdefault(later[0], {})[name] = price
            sold[name] = later[0]
        elif later:
            stale.append(name)
    expected.counts |= {"stale": stale, "sold": sold}
    return found


def _simulate(
    world: World,
    expected: Expected,
    decisions: list[pd.Timestamp],
    delistings: dict[pd.Timestamp, dict[str, float]],
) -> None:
    config = world.config
    shares = dict.fromkeys(world.members, 0.0)
    marks: dict[str, float] = {}
    cash = config["capital"]
    awaiting: tuple[pd.Timestamp, dict[int, dict[str, float]]] | None = None
    for day in expected.sessions:
        for name in world.members:
            if (close := world.close(day, name)) is not None:
                marks[name] = close
        for name, price in delistings.get(day, {}).items():
            if shares[name]:
                proceeds = shares[name] * price
                commission = config["commission"] * abs(proceeds)
                cash += proceeds - commission
                expected.costs += commission
                expected.trades.append((day, None, name, -proceeds))
                shares[name] = 0.0
        if awaiting is not None:
            cash = _execute(world, expected, day, awaiting, shares, marks, cash)
            awaiting = None
        worth = sum(number * marks[name] for name, number in shares.items() if number)
        expected.nav.append(worth + cash)
        if day in decisions:
            sides = _choose(world, day)
            awaiting = (day, sides) if sides else None


def _choose(world: World, day: pd.Timestamp) -> dict[int, dict[str, float]]:
    """Return the chosen of each side (1 and -1) with what their weight goes by."""
    scores = {name: world.score(day, name) or 0.0 for name in world.eligible(day)}
    ranked = sorted(scores, key=lambda name: (-scores[name], name))
    if not ranked:
        return {}
    mean = sum(scores.values()) / len(scores)
    count = world.config["top_n"]
    if world.config["long_short"]:
        count = min(count, len(ranked) // 2)
        if count == 0:
            return {}
    sides = {1: {name: max(0.0, scores[name] - mean) for name in ranked[:count]}}
    if world.config["long_short"]:
        sides[-1] = {name: max(0.0, mean - scores[name]) for name in ranked[-count:]}
    return sides


def _execute(
    world: World,
    expected: Expected,
    day: pd.Timestamp,
    awaiting: tuple[pd.Timestamp, dict[int, dict[str, float]]],
    shares: dict[str, float],
    marks: Mapping[str, float],
    cash: float,
) -> float:
    """Trade to the weights and return the cash that is left; `shares` changes."""
    decided_on, sides = awaiting
    config = world.config
    held = {name: number * marks[name] for name, number in shares.items() if number}
    nav = sum(held.values()) + cash
    tradable = {name for name in world.members if world.close(day, name) is not None}
    stuck = {name: value for name, value in held.items() if name not in tradable}
    targets: Weights = {}
    for side, chosen in sides.items():
        kept = {name: by for name, by in chosen.items() if name in tradable}
        if not kept:
            return cash
        total = sum(kept.values())
        is_even = config["weighting"] == "equal" or total == 0
        used = sum(abs(value) for value in stuck.values() if value * side > 0)
        budget = max(0.0, nav - used)
        for name, by in kept.items():
            targets[name] = side * budget * (1 / len(kept) if is_even else by / total)
    if nav == 0:
        return cash
    trades = {
        name: targets.get(name, 0.0) - held.get(name, 0.0)
        for name in world.members
        if name in tradable and (name in targets or name in held)
    }
    costs = sum(_cost(world, day, name, abs(trade), nav) for name, trade in trades.items())
    left = nav - sum(stuck.values()) - sum(targets.values())
    if stuck:  # the cash pays first, then the purchases
        lacking = costs - min(costs, max(0.0, left))
        purchases = sum(value for value in targets.values() if value > 0)
        if lacking and lacking >= purchases:
            raise CapitalGoneError
        if lacking:
            targets = {
                name: value * (1 - lacking / purchases) if value > 0 else value
                for name, value in targets.items()
            }
        left -= costs - lacking
    else:
        if costs >= nav:
            raise CapitalGoneError
        targets = {name: value * (nav - costs) / nav for name, value in targets.items()}
        left *= (nav - costs) / nav
    for name in trades:
        shares[name] = targets.get(name, 0.0) / marks[name]
    expected.costs += costs
    expected.executions += 1
    expected.trades.extend((day, decided_on, name, trade) for name, trade in trades.items())
    return left


def _cost(world: World, day: pd.Timestamp, name: str, size: float, nav: float) -> float:
    config, rate = world.config, world.config["rate"]
    extra = {"none": 0.0, "fixed": rate * size, "linear": rate * (size / nav) * size}
    if config["slippage"] == "volume":
        volume = world.volumes[day, name]
        if math.isnan(volume) or volume <= 0:
            extra["volume"] = 0.0005 * size
        else:
            extra["volume"] = rate * min(1.0, size / world.closes.loc[day, name] / volume) * size
    return float(config["commission"] * size + extra[config["slippage"]])


def _benchmark(world: World, expected: Expected, wide: pd.DataFrame) -> list[float]:
    sessions, config = expected.sessions, world.config
    if config["benchmark"] != "equal_weight":
        own = wide[config["benchmark"]].dropna()
        levels = []
        for day in sessions:
            before = own[own.index <= day]
            if before.empty:
                raise NoSessionError
            levels.append(float(before.iloc[-1]))
        return [config["capital"] * level / levels[0] for level in levels]
    level, path, sold = config["capital"], [config["capital"]], expected.counts["sold"]
    marks: dict[str, float] = {}
    for number, day in enumerate(sessions):
        returns = []
        for name in world.members:
            close = world.close(day, name)
            gone = name in sold and sold[name] < day
            if name in marks and not gone and world.is_member(sessions[number - 1], name):
                if sold.get(name) == day:
                    returns.append(config["delisting_return"])
                else:
                    returns.append(0.0 if close is None else close / marks[name] - 1)
            if close is not None:
                marks[name] = close
        if number:
            level *= 1 + (sum(returns) / len(returns) if returns else 0.0)
            path.append(level)
    return path
