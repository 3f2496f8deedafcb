"""The computation of each operator: on arrays for the language, and as polars work for plugins.

Arrays have a row for each session and a column for each entity; NaN is no value. Each kernel gets its operands as such
arrays (literals too) and its numbers, of which none is omitted.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeAlias

import numpy as np
import polars as pl

from optaic.expression import order, rolling, sections
from optaic.expression.groups import in_groups
from optaic.expression.operators import OPERATORS
from optaic.expression.signature import Scope, Signature
from optaic.expression.sums import Array
from optaic.expression.threads import compute_parts, count_threads

Kernel: TypeAlias = Callable[[Sequence[Array], Sequence[float]], Array]
Implementation: TypeAlias = Callable[[Sequence[pl.Expr], Sequence[float]], pl.Expr]

_MANY = 400  # entities for which one session is computed faster than polars computes theirs
_PART = 131_072  # values, at most, that polars computes at once: their results are copied while they are in the cache
_AT_ONCE = 16_000  # powers, about: what is computed with them stays in the processor's cache


def _over(compute: rolling.Compute, *, has_now: bool = False, compares: bool = False) -> Kernel:
    """Return the kernel of a figure of windows, whose numbers are n and min_periods."""
    return lambda v, p: rolling.roll(v, int(p[0]), int(p[1]), compute, has_now=has_now, compares=compares)


def _across(compute: Callable[..., Array], *, is_wide: bool = False) -> Kernel:
    """Return the kernel of a cross-section, with or without a group after the value; `optaic.expression.groups` says what is wide."""

    def kernel(values: Sequence[Array], parameters: Sequence[float]) -> Array:
        def section(x: Array) -> Array:
            return compute(x, *parameters)

        if len(values) == 1:
            return section(values[0])
        return in_groups(values[0], values[1], section, is_wide=is_wide)

    return kernel


def _by_polars(compute: Callable[[pl.Expr], pl.Expr], *, is_quick: bool = False) -> Kernel:
    """Return the kernel of a function of each value, which polars computes; that of NaN is NaN.

    Args:
        compute: the function.
        is_quick: whether it takes no longer than a copy of the results, which several threads would have to make.
    """

    def compute_row(x: Array) -> Array:
        return pl.select(compute(pl.lit(pl.Series(x)))).to_series().to_numpy()

    def kernel(values: Sequence[Array], _: Sequence[float]) -> Array:
        x = values[0].ravel()
        threads = 1 if is_quick else count_threads(x.size)
        if threads == 1:
            return compute_row(x).reshape(values[0].shape)
        found, size = np.empty_like(x), min(_PART, math.ceil(x.size / threads))

        def compute_from(first: int) -> None:
            found[first : first + size] = compute_row(x[first : first + size])

        compute_parts(compute_from, range(0, x.size, size), x.size)
        return found.reshape(values[0].shape)

    return kernel


def power(base: Array | float, exponent: Array | float) -> Array:
    """Return powers as the C library computes them; polars knows quicker ways for an exponent that is a literal."""
    base, exponent = (float(value) if np.ndim(value) == 0 else value for value in (base, exponent))
    if isinstance(exponent, float):
        return _raise_to(base, exponent)
    a, b = np.broadcast_arrays(base, exponent)
    found = np.empty(b.shape)

    def compute_from(first: int) -> None:
        part = slice(first, first + size)
        np.float_power(a[part], b[part], out=found[part])
        np.copyto(found[part], np.nan, where=np.isnan(a[part]) | np.isnan(b[part]))

    size = max(1, _AT_ONCE * len(b) // max(1, b.size))
    compute_parts(compute_from, range(0, len(b), size), b.size)
    return found


def _raise_to(base: Array | float, exponent: float) -> Array:
    values = pl.lit(base) if isinstance(base, float) else pl.lit(pl.Series(base.ravel()))
    found = pl.select(values.pow(exponent)).to_series().to_numpy().reshape(np.shape(base))
    if abs(exponent) > 0.0:  # such a power of NaN is NaN
        return found
    return np.where(np.isnan(base) | np.isnan(exponent), np.nan, found)


def lag(x: Array, n: int) -> Array:
    """Return the values n sessions back."""
    if n == 0:
        return x
    found = np.full(x.shape, np.nan)
    found[n:] = x[:-n]
    return found


def _average_exponentially(values: Sequence[Array], parameters: Sequence[float]) -> Array:
    """Return exponential averages: of all entities session by session, or, of few, by polars, with the same bits."""
    (x,), (span, fewest) = values, parameters
    if x.shape[1] >= _MANY:
        return _average_by_session(x, 2.0 / (span + 1.0), fewest)
    average = pl.all().ewm_mean(span=span, adjust=False, ignore_nulls=True, min_samples=int(fewest))
    by_entity = pl.from_numpy(x).fill_nan(None)
    return by_entity.select(average).to_numpy(order="c").reshape(x.shape)


def _average_by_session(x: Array, share: float, fewest: float) -> Array:
    found, counted, held = np.empty_like(x), np.zeros(x.shape[1]), np.zeros(x.shape[1])
    for session, now in enumerate(x):
        is_there = ~np.isnan(now)
        moved = np.where(counted > 0, held + (now - held) * share, now)
        held = np.where(is_there, moved, held)
        counted += is_there
        found[session] = np.where(is_there & (counted >= fewest), held, np.nan)
    return found


def _carry(values: Sequence[Array], parameters: Sequence[float]) -> Array:
    """Return the newest value, at most n sessions old."""
    (x,), n = values, int(parameters[0])
    places = np.broadcast_to(np.arange(len(x))[:, None], x.shape)
    newest = np.maximum.accumulate(np.where(np.isnan(x), -1, places), axis=0)
    carried = np.take_along_axis(x, np.maximum(newest, 0), axis=0)
    return np.where((newest >= 0) & (places - newest <= n), carried, np.nan)


def _hump(values: Sequence[Array], parameters: Sequence[float]) -> Array:
    """Return values that follow x in steps of at most hump, and stay where x is not farther away."""
    (x,), (hump,) = values, parameters
    found, held = np.empty_like(x), np.full(x.shape[1], np.nan)
    for session, now in enumerate(x):
        away = now - held
        moved = np.where(np.abs(away) > hump, held + np.copysign(hump, away), held)
        held = np.where(np.isnan(now), held, np.where(np.isnan(held), now, moved))
        found[session] = np.where(np.isnan(now), np.nan, held)
    return found


def _choose(values: Sequence[Array], _: Sequence[float]) -> Array:
    condition, x, y = values
    return np.where(np.isnan(condition), np.nan, np.where(condition != 0.0, x, y))


def _clip(values: Sequence[Array], _: Sequence[float]) -> Array:
    x, lower, upper = values
    return np.where(lower > upper, np.nan, np.minimum(np.maximum(x, lower), upper))


KERNELS: Mapping[str, Kernel] = {
    "REF": lambda v, p: lag(v[0], int(p[0])),
    "DELTA": lambda v, p: v[0] - lag(v[0], int(p[0])),
    "PCT": lambda v, p: v[0] / lag(v[0], int(p[0])) - 1.0,
    "MEAN": _over(rolling.find_mean),
    "STD": _over(rolling.find_deviation),
    "MIN": _over(rolling.find_smallest),
    "MAX": _over(rolling.find_largest),
    "SUM": _over(rolling.find_sum),
    "EMA": _average_exponentially,
    "CORR": _over(rolling.find_correlation),
    "RANK": _across(sections.rank),
    "ZSCORE": _across(sections.score),
    "DEMEAN": _across(sections.demean),
    "WINSORIZE": _across(sections.winsorize, is_wide=True),
    "SCALE": _across(sections.share),
    "LOG": _by_polars(pl.Expr.log),
    "ABS": lambda v, _: np.abs(v[0]),
    "SIGN": _by_polars(pl.Expr.sign, is_quick=True),
    "FFILL": _carry,
    "MEDIAN": lambda v, p: order.find_quantile(v[0], int(p[0]), 0.5, int(p[1])),
    "QUANTILE": lambda v, p: order.find_quantile(v[0], int(p[0]), p[1], int(p[2])),
    "SKEW": _over(rolling.find_skewness),
    "KURT": _over(rolling.find_kurtosis),
    "COV": _over(rolling.find_covariance),
    "BETA": _over(rolling.find_slope),
    "RESID": _over(rolling.find_residual, has_now=True),
    "TS_RANK": _over(order.find_rank, has_now=True, compares=True),
    "ARGMAX": _over(order.find_place_of_largest, compares=True),
    "ARGMIN": _over(order.find_place_of_smallest, compares=True),
    "COUNT": lambda v, p: _count(v[0], int(p[0]), int(p[1])),
    "DECAY_LINEAR": _over(rolling.find_decayed),
    "HUMP": _hump,
    "FILL": lambda v, _: np.where(np.isnan(v[0]), v[1], v[0]),
    "IF": _choose,
    "EXP": _by_polars(pl.Expr.exp),
    "SQRT": lambda v, _: np.sqrt(v[0]),
    "POW": lambda v, _: power(v[0], v[1]),
    "CLIP": _clip,
    "GREATEST": lambda v, _: np.maximum(v[0], v[1]),
    "LEAST": lambda v, _: np.minimum(v[0], v[1]),
}


def _count(x: Array, n: int, fewest: int) -> Array:
    found = rolling.count_windows(~np.isnan(x), n)
    return np.where(found < fewest, np.nan, found)


def _as_polars(signature: Signature) -> Implementation:
    """Return an operator as a function of polars expressions, as plugins have it: over the values of one window."""
    kernel, is_section = KERNELS[signature.name], signature.scope is Scope.CROSS_SECTION

    def implementation(values: Sequence[pl.Expr], parameters: Sequence[float]) -> pl.Expr:
        names = [parameter.name for parameter in signature.parameters]
        numbers = tuple(signature.complete(dict(zip(names, parameters, strict=False))).values())

        def compute(fields: pl.Series) -> pl.Series:
            columns = [_to_array(fields.struct.field(name)) for name in fields.struct.fields]
            arrays = [column[None, :] if is_section else column[:, None] for column in columns]
            with np.errstate(all="ignore"):
                found = kernel(arrays, numbers).ravel()
            return pl.Series(found, nan_to_null=True)

        operands: dict[str, Any] = {f"value_{place}": value for place, value in enumerate(values)}
        found: pl.Expr = pl.struct(**operands).map_batches(compute, return_dtype=pl.Float64)
        return found

    return implementation


def _to_array(values: pl.Series) -> Array:
    """Return numbers as they are, and texts as numbers that are equal where the texts are."""
    if not (values.dtype.is_numeric() or values.dtype in {pl.Boolean, pl.Null}):
        values = values.cast(pl.String).cast(pl.Categorical).to_physical()
    return np.array(values.cast(pl.Float64).to_numpy())


IMPLEMENTATIONS: Mapping[str, Implementation] = {
    name: _as_polars(signature) for name, signature in OPERATORS.items()
}
