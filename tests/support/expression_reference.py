"""An independent evaluation of expressions in plain pandas, on wide frames (dates down, entities across).

It shares nothing with the product: trees are nested tuples, rendered to text for the product's parser.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd
from hypothesis import strategies as st

Tree = tuple[Any, ...]


def render(tree: Tree) -> str:
    """Return the text of a tree."""
    match tree:
        case ("column", name):
            return str(name)
        case ("number", value):
            return repr(value)
        case ("negate", inner):
            return f"-({render(inner)})"
        case ("binary", symbol, left, right):
            return f"({render(left)}) {symbol} ({render(right)})"
        case ("call", name, values, parameters):
            return f"{name}({', '.join([*map(render, values), *map(repr, parameters)])})"
    raise AssertionError(tree)


class WideFrames:
    """Columns as wide frames, with the rows that exist."""

    def __init__(self, columns: dict[str, pd.DataFrame], present: pd.DataFrame) -> None:
        self.present = present
        self.columns = columns

    def evaluate(self, tree: Tree) -> pd.DataFrame:
        """Return the tree's value; NaN where there is none."""
        with np.errstate(all="ignore"):
            return self._keep(self._compute(tree))

    def _keep(self, values: pd.DataFrame) -> pd.DataFrame:
        return values.where(np.isfinite(values)).where(self.present)

    def _compute(self, tree: Tree) -> pd.DataFrame:
        match tree:
            case ("column", name):
                return self.columns[name]
            case ("number", value):
                return pd.DataFrame(float(value), index=self.present.index, columns=self.present.columns)
            case ("negate", inner):
                return -self.evaluate(inner)
            case ("binary", symbol, left, right):
                return _infix(symbol, self.evaluate(left), self.evaluate(right))
            case ("call", name, values, parameters):
                return _call(name, [self.evaluate(value) for value in values], list(parameters))
        raise AssertionError(tree)


def _infix(symbol: str, a: pd.DataFrame, b: pd.DataFrame) -> pd.DataFrame:
    arithmetic = {"+": "add", "-": "sub", "*": "mul", "/": "div", "^": "pow"}
    if symbol in arithmetic:
        # 1 ^ NaN is 1 in pandas, but an absent operand gives an absent result.
        return getattr(a, arithmetic[symbol])(b).where(a.notna() & b.notna())
    comparison = {"<": "lt", "<=": "le", ">": "gt", ">=": "ge", "==": "eq", "!=": "ne"}
    return getattr(a, comparison[symbol])(b).astype(float).where(a.notna() & b.notna())


def _call(name: str, values: list[pd.DataFrame], parameters: list[float]) -> pd.DataFrame:
    if name in _WINDOW_FUNCTIONS:
        n, fewest = int(parameters[0]), int(parameters[-1]) if len(parameters) > 1 else int(parameters[0])
        extra = parameters[1:-1]
        return _over_windows(
            values, n, fewest, lambda *given: _WINDOW_FUNCTIONS[name](*given, *extra), name in _NEEDS_NOW
        )
    if name in _IN_GROUPS and len(values) > 1:
        return _by_group(values[0], values[1], lambda x: _CALLS[name](x, *parameters))
    return _CALLS[name](*values, *parameters)


def _over_windows(
    values: list[pd.DataFrame], n: int, fewest: int, reduce: Callable[..., float], needs_now: bool
) -> pd.DataFrame:
    """Apply a function to the complete rows of the last n sessions: the places in the window, then the values."""
    found = np.full(values[0].shape, np.nan)
    for entity in range(found.shape[1]):
        rows = np.array([each.to_numpy()[:, entity] for each in values])
        is_there = ~np.isnan(rows).any(axis=0)
        for end in range(rows.shape[1]):
            sessions = np.array([at for at in range(max(0, end - n + 1), end + 1) if is_there[at]], int)
            if len(sessions) >= fewest and (is_there[end] or not needs_now):
                found[end, entity] = reduce(sessions - end + n, *rows[:, sessions]) if len(sessions) else 0.0
    return pd.DataFrame(found, index=values[0].index, columns=values[0].columns)


def _by_group(
    x: pd.DataFrame, group: pd.DataFrame, compute: Callable[[pd.DataFrame], pd.DataFrame]
) -> pd.DataFrame:
    found = pd.DataFrame(np.nan, index=x.index, columns=x.columns)
    for value in np.unique(group.to_numpy()[group.notna().to_numpy()]):
        found = found.where(group != value, compute(x.where(group == value)))
    return found


def _ema(x: pd.DataFrame, n: int, fewest: int | None = None) -> pd.DataFrame:
    fewest = n if fewest is None else int(fewest)
    return x.apply(
        lambda s: s.ewm(span=n, adjust=False, ignore_na=True, min_periods=fewest).mean().where(s.notna())
    )


def _hump(x: pd.DataFrame, hump: float) -> pd.DataFrame:
    found = pd.DataFrame(np.nan, index=x.index, columns=x.columns)
    for entity in x.columns:
        held = math.nan
        for date, now in x[entity].items():
            if math.isnan(now):
                continue
            if math.isnan(held):
                held = now
            elif abs(now - held) > hump:
                held += hump if now > held else -hump
            found.loc[date, entity] = held
    return found


def _carry(x: pd.DataFrame, n: int) -> pd.DataFrame:
    return x.ffill(limit=int(n))


def _either(x: pd.DataFrame, y: pd.DataFrame, *, larger: bool) -> pd.DataFrame:
    chosen = x.where((x >= y) if larger else (x <= y), y)
    return chosen.where(x.notna() & y.notna())


def _zscore(x: pd.DataFrame) -> pd.DataFrame:
    deviation = x.std(axis=1, ddof=1).where(x.max(axis=1) > x.min(axis=1))
    return x.sub(x.mean(axis=1), axis=0).div(deviation, axis=0)


def _winsorize(x: pd.DataFrame, p: float) -> pd.DataFrame:
    return x.clip(x.quantile(p, axis=1), x.quantile(1 - p, axis=1), axis=0).where(x.notna())


_CALLS: dict[str, Callable[..., pd.DataFrame]] = {
    "REF": lambda x, n: x.shift(n),
    "DELTA": lambda x, n: x - x.shift(n),
    "PCT": lambda x, n: x / x.shift(n) - 1,
    "EMA": _ema,
    "RANK": lambda x: x.rank(axis=1, method="average", pct=True),
    "ZSCORE": _zscore,
    "DEMEAN": lambda x: x.sub(x.mean(axis=1), axis=0),
    "WINSORIZE": _winsorize,
    "SCALE": lambda x: x.div(x.abs().sum(axis=1), axis=0),
    "LOG": lambda x: x.apply(np.log),
    "ABS": lambda x: x.abs(),
    "SIGN": lambda x: x.apply(np.sign),
    "FFILL": _carry,
    "HUMP": _hump,
    "FILL": lambda x, value: x.where(x.notna(), value),
    "IF": lambda c, x, y: x.where(c != 0, y).where(c.notna()),
    "EXP": lambda x: x.apply(np.exp),
    "SQRT": lambda x: x.apply(np.sqrt),
    "POW": lambda x, y: _infix("^", x, y),
    "CLIP": lambda x, low, high: _either(_either(x, low, larger=True), high, larger=False).where(low <= high),
    "GREATEST": lambda x, y: _either(x, y, larger=True),
    "LEAST": lambda x, y: _either(x, y, larger=False),
}
_IN_GROUPS = {"RANK", "ZSCORE", "DEMEAN", "WINSORIZE", "SCALE"}
_NEEDS_NOW = {"TS_RANK", "RESID"}


def _is_constant(x: np.ndarray) -> bool:
    return bool(x.min() == x.max())


def _moment(x: np.ndarray, power: int) -> float:
    return float(((x - x.mean()) ** power).mean())


def _skew(_: np.ndarray, x: np.ndarray) -> float:
    """Return the adjusted Fisher-Pearson coefficient, as SPSS, SAS and Excel define it."""
    m = len(x)
    if m < 3 or _is_constant(x):
        return math.nan
    return math.sqrt(m * (m - 1)) / (m - 2) * _moment(x, 3) / math.pow(_moment(x, 2), 1.5)


def _kurt(_: np.ndarray, x: np.ndarray) -> float:
    m = len(x)
    if m < 4 or _is_constant(x):
        return math.nan
    excess = _moment(x, 4) / _moment(x, 2) ** 2 - 3
    return (m - 1) / ((m - 2) * (m - 3)) * ((m + 1) * excess + 6)


def _correlation(_: np.ndarray, x: np.ndarray, y: np.ndarray) -> float:
    if len(x) < 2 or _is_constant(x) or _is_constant(y):
        return math.nan
    return float(np.corrcoef(x, y)[0, 1])


def _covariance(_: np.ndarray, x: np.ndarray, y: np.ndarray) -> float:
    return float(((x - x.mean()) * (y - y.mean())).sum() / (len(x) - 1)) if len(x) > 1 else math.nan


def _line(x: np.ndarray, y: np.ndarray) -> tuple[float, float]:
    """Slope and intercept of least squares, from the design matrix."""
    design = np.column_stack([y - y.mean(), np.ones_like(y)])
    slope, level = np.linalg.lstsq(design, x, rcond=None)[0]
    return slope, level - slope * y.mean()


def _beta(_: np.ndarray, x: np.ndarray, y: np.ndarray) -> float:
    return math.nan if len(x) < 2 or _is_constant(y) else _line(x, y)[0]


def _resid(_: np.ndarray, x: np.ndarray, y: np.ndarray) -> float:
    if len(x) < 2 or _is_constant(y):
        return math.nan
    slope, level = _line(x, y)
    return float(x[-1] - level - slope * y[-1])


def _deviation(_: np.ndarray, x: np.ndarray) -> float:
    if len(x) < 2:
        return math.nan
    return 0.0 if _is_constant(x) else float(np.std(x, ddof=1))


def _count_all(_: np.ndarray, x: np.ndarray) -> float:
    return float(len(x))


_WINDOW_FUNCTIONS: dict[str, Callable[..., float]] = {
    "MEAN": lambda _, x: x.mean(),
    "STD": _deviation,
    "MIN": lambda _, x: x.min(),
    "MAX": lambda _, x: x.max(),
    "SUM": lambda _, x: x.sum(),
    "CORR": _correlation,
    "MEDIAN": lambda _, x: np.median(x),
    "QUANTILE": lambda _, x, q: np.quantile(x, q),
    "SKEW": _skew,
    "KURT": _kurt,
    "COV": _covariance,
    "BETA": _beta,
    "RESID": _resid,
    "TS_RANK": lambda _, x: ((x < x[-1]).sum() + ((x == x[-1]).sum() + 1) / 2) / len(x),
    "ARGMAX": lambda places, x: places[np.argmax(x)],
    "ARGMIN": lambda places, x: places[np.argmin(x)],
    "COUNT": _count_all,
    "DECAY_LINEAR": lambda places, x: (places * x).sum() / places.sum(),
}


_LEAVES = st.one_of(
    st.sampled_from([("column", "open"), ("column", "close")]),
    st.sampled_from([0.0, 0.5, 1.0, 2.0, 3.0]).map(lambda value: ("number", value)),
)
_COMPARISONS = ["<", "<=", ">", ">=", "==", "!="]


def _exact(inner: st.SearchStrategy[Tree]) -> st.SearchStrategy[Tree]:
    """Operations whose result has no rounding on small dyadic numbers, whatever the order of summation."""
    one = st.tuples(inner)
    return st.one_of(
        st.tuples(st.just("negate"), inner),
        st.tuples(st.just("binary"), st.sampled_from(["+", "-", *_COMPARISONS]), inner, inner),
        st.tuples(st.just("binary"), st.just("*"), _LEAVES, _LEAVES),
        st.tuples(
            st.just("call"),
            st.sampled_from(["REF", "DELTA", "SUM", "MIN", "MAX"]),
            one,
            st.tuples(st.integers(1, 5)),
        ),
        st.tuples(st.just("call"), st.sampled_from(["ABS", "SIGN", "RANK"]), one, st.just(())),
    )


_EXACT: st.SearchStrategy[Tree] = st.recursive(_LEAVES, _exact, max_leaves=4)
# Operators that jump, or divide by something that may be nearly nothing, read exact values only: there a rounding
# difference between two correct evaluations would show as another answer.
_ROUNDED: st.SearchStrategy[Tree] = st.one_of(
    st.tuples(st.just("binary"), st.just("/"), _EXACT, _EXACT),
    st.tuples(
        st.just("binary"), st.just("^"), _EXACT, st.sampled_from([0.5, 2.0, 3.0]).map(lambda v: ("number", v))
    ),
    st.tuples(st.just("call"), st.sampled_from(["LOG", "ZSCORE", "SCALE"]), st.tuples(_EXACT), st.just(())),
    st.tuples(st.just("call"), st.just("PCT"), st.tuples(_EXACT), st.tuples(st.integers(1, 3))),
    st.tuples(st.just("call"), st.sampled_from(["STD"]), st.tuples(_EXACT), st.tuples(st.integers(2, 5))),
    st.tuples(st.just("call"), st.just("CORR"), st.tuples(_EXACT, _EXACT), st.tuples(st.integers(3, 5))),
)


def _smooth(inner: st.SearchStrategy[Tree]) -> st.SearchStrategy[Tree]:
    one = st.tuples(inner)
    return st.one_of(
        st.tuples(st.just("negate"), inner),
        st.tuples(st.just("binary"), st.sampled_from(["+", "-"]), inner, st.one_of(inner, _EXACT)),
        st.tuples(st.just("binary"), st.just("*"), inner, _LEAVES),
        st.tuples(
            st.just("call"),
            st.sampled_from(["REF", "DELTA", "MEAN", "SUM", "MIN", "MAX", "EMA"]),
            one,
            st.tuples(st.integers(1, 4)),
        ),
        st.tuples(st.just("call"), st.sampled_from(["DEMEAN", "ABS"]), one, st.just(())),
        st.tuples(
            st.just("call"), st.just("WINSORIZE"), one, st.tuples(st.sampled_from([0.0, 0.1, 0.25, 0.5]))
        ),
    )


trees: st.SearchStrategy[Tree] = st.one_of(
    _EXACT, _ROUNDED, st.recursive(st.one_of(_ROUNDED, _EXACT), _smooth, max_leaves=4)
)


@st.composite
def wide_frames(draw: st.DrawFn) -> WideFrames:
    """Up to 12 sessions of up to 5 entities; rows and values are missing here and there."""
    sessions, entities = draw(st.integers(1, 12)), draw(st.integers(1, 5))
    index = pd.date_range("2020-01-01", periods=sessions)
    names = [f"e{number}" for number in range(entities)]
    seed = draw(st.integers(0, 2**32 - 1))
    missing = draw(st.sampled_from([0.0, 0.1, 0.3]))
    rng = np.random.default_rng(seed)
    shape = (sessions, entities)
    present = pd.DataFrame(rng.random(shape) >= missing, index=index, columns=names)
    columns = {}
    for name in ("open", "close"):
        values = rng.integers(-16, 16, shape) / 4.0
        values[rng.random(shape) < missing / 2] = rng.choice([np.nan, np.inf, -np.inf])
        columns[name] = pd.DataFrame(values, index=index, columns=names)
    return WideFrames(columns, present)
