"""An independent evaluation of expressions in plain pandas, on wide frames (dates down, entities across).

It shares nothing with the product: trees are nested tuples, rendered to text for the product's parser.
"""

from __future__ import annotations

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
        n, reduce = int(parameters[0]), _WINDOW_FUNCTIONS[name]
        return values[0].apply(lambda s: s.rolling(n, min_periods=n).apply(reduce, raw=True))
    return _CALLS[name](*values, *parameters)


def _ema(x: pd.DataFrame, n: int) -> pd.DataFrame:
    return x.apply(
        lambda s: s.ewm(span=n, adjust=False, ignore_na=True, min_periods=n).mean().where(s.notna())
    )


def _correlate(x: pd.DataFrame, y: pd.DataFrame, n: int) -> pd.DataFrame:
    return pd.DataFrame({c: _rolling_correlation(x[c], y[c], n) for c in x.columns})


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
    "CORR": _correlate,
    "RANK": lambda x: x.rank(axis=1, method="average", pct=True),
    "ZSCORE": _zscore,
    "DEMEAN": lambda x: x.sub(x.mean(axis=1), axis=0),
    "WINSORIZE": _winsorize,
    "SCALE": lambda x: x.div(x.abs().sum(axis=1), axis=0),
    "LOG": lambda x: x.apply(np.log),
    "ABS": lambda x: x.abs(),
    "SIGN": lambda x: x.apply(np.sign),
}
_WINDOW_FUNCTIONS: dict[str, Callable[..., Any]] = {
    "MEAN": np.mean,
    "STD": lambda window: np.std(window, ddof=1),
    "MIN": np.min,
    "MAX": np.max,
    "SUM": np.sum,
}


def _rolling_correlation(x: pd.Series, y: pd.Series, n: int) -> pd.Series:
    result = pd.Series(np.nan, index=x.index)
    for end in range(n, len(x) + 1):
        a, b = x.iloc[end - n : end].to_numpy(), y.iloc[end - n : end].to_numpy()
        if not (np.isnan(a).any() or np.isnan(b).any()) and a.min() < a.max() and b.min() < b.max():
            result.iloc[end - 1] = np.corrcoef(a, b)[0, 1]
    return result


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
