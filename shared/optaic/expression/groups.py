"""Lay out the entities of each group side by side, so that a cross-section is computed within groups.

Arrays have a row for each date and a column for each entity; NaN is no value, and an entity without one takes no part. Groups
with 1, 2, 3 to 4, 5 to 8, ... values are computed together, in a block with a row for each. Quantiles need blocks of exactly
such widths (`is_wide`): the width decides the last bit of what stored expressions give.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from optaic.expression.sums import Array

Section: TypeAlias = Callable[[Array], Array]
Mask: TypeAlias = NDArray[np.bool_]

_AT_ONCE = 500_000  # numbers of a block, about: fewer stay in the cache, more are fewer calls


def in_groups(x: Array, groups: Array, compute: Section, *, is_wide: bool = False) -> Array:
    """Return what is computed among the entities of one group on each date; an entity without a group has no value."""
    if not x.size:
        return np.full(x.shape, np.nan)
    largest, smallest = np.fmax.reduce(groups, axis=0), np.fmin.reduce(groups, axis=0)
    if not np.array_equal(largest, smallest, equal_nan=True):
        return _in_changing_groups(x, groups, compute)
    is_outside = np.isnan(groups)
    if is_outside.any():
        x = np.where(is_outside, np.nan, x)
    return _in_lasting_groups(x, largest, compute, is_wide=is_wide)


def _in_lasting_groups(x: Array, group: Array, compute: Section, *, is_wide: bool) -> Array:
    """Return the same where the entities keep their groups: those of one group are columns of a block."""
    found = np.full(x.shape, np.nan)
    entities = np.argsort(group, kind="stable")[: np.count_nonzero(~np.isnan(group))]
    _, starts, sizes = np.unique(group[entities], return_index=True, return_counts=True)
    for chosen, most in _of_like_size(sizes):
        width = most if is_wide else int(sizes[chosen].max())
        place = np.arange(width)
        is_member = place < sizes[chosen][:, None]
        members = entities[np.where(is_member, starts[chosen][:, None] + place, 0)]
        places = np.flatnonzero(is_member)
        dates = max(1, _AT_ONCE // members.size)
        for first in range(0, len(x), dates):
            part = slice(first, first + dates)
            block = np.take(x[part], members, axis=1)
            block[:, ~is_member] = np.nan
            results = _compute_in_own_width(block.reshape(-1, width), most, compute)
            found[part, members[is_member]] = np.take(results.reshape(len(block), -1), places, axis=1)
    return found


def _compute_in_own_width(block: Array, most: int, compute: Section) -> Array:
    """Return what is computed in each row; one with too few values for a block of `most` is computed in a smaller one."""
    found = compute(block)
    is_there = ~np.isnan(block)
    counts = np.count_nonzero(is_there, axis=1)
    rows = np.flatnonzero((counts > 0) & (counts <= most // 2))
    if not len(rows):
        return found
    order = np.argsort(~is_there[rows], axis=1, kind="stable")  # so the entities of a group stay in order
    values = np.take_along_axis(block[rows], order, axis=1)
    results = np.full(values.shape, np.nan)
    for chosen, width in _of_like_size(counts[rows]):
        results[chosen, :width] = compute(values[chosen, :width])
    moved = np.empty(values.shape)
    np.put_along_axis(moved, order, results, axis=1)
    found[rows] = moved
    return found


def _in_changing_groups(x: Array, groups: Array, compute: Section) -> Array:
    """Return the same where an entity changes its group: each group of a date is a row of a block."""
    dates, entities = np.nonzero(~(np.isnan(x) | np.isnan(groups)))
    found = np.full(x.shape, np.nan)
    _, codes = np.unique(groups[dates, entities], return_inverse=True)
    key = dates * (codes.max(initial=0) + 1) + codes
    order = np.argsort(key, kind="stable")  # so the entities of a group stay in order
    entities, dates, key = entities[order], dates[order], key[order]
    starts = np.flatnonzero(np.diff(key, prepend=-1))
    sizes = np.diff(starts, append=len(key))
    number = np.repeat(np.arange(len(starts)), sizes)
    place = np.arange(len(key)) - starts[number]
    for chosen, width in _of_like_size(sizes):
        row = np.cumsum(chosen) - 1
        is_in = chosen[number]
        block = np.full((int(chosen.sum()), width), np.nan)
        where = row[number[is_in]], place[is_in]
        block[where] = x[dates[is_in], entities[is_in]]
        found[dates[is_in], entities[is_in]] = compute(block)[where]
    return found


def _of_like_size(sizes: NDArray[np.int64]) -> Iterator[tuple[Mask, int]]:
    """Yield which groups fit into a block of one width, at least half filled, and that width."""
    width = 1
    while width < 2 * sizes.max(initial=0):
        chosen = (sizes <= width) & (sizes > width // 2)
        if chosen.any():
            yield chosen, width
        width *= 2
