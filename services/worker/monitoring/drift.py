"""Measure how far the values of a column are from those of its reference."""

from __future__ import annotations

from typing import Any

import numpy as np
import polars as pl

BINS = 10
LEAST_SHARE = 1e-4  # of a bin: an empty one would make the index infinite
_MOST_EXACT = (
    1_000_000  # pairs of values up to which the p-value is computed exactly, which takes as many steps
)


def population_stability(reference: Any, current: Any) -> float:
    """Return the population stability index over ten bins between the quantiles of the reference.

    Each bin contains its lower edge. Equal edges, of a reference with few values, count once. A bin has at least
    `LEAST_SHARE` of the values.

    Args:
        reference: finite numbers, at least one.
        current: likewise.
    """
    edges = np.unique(np.quantile(reference, np.arange(1, BINS) / BINS))
    expected, found = (
        np.bincount(np.searchsorted(edges, values, side="right"), minlength=edges.size + 1) / values.size
        for values in (reference, current)
    )
    expected, found = np.maximum(expected, LEAST_SHARE), np.maximum(found, LEAST_SHARE)
    return float(np.sum((found - expected) * np.log(found / expected)))


def kolmogorov_smirnov(reference: Any, current: Any) -> tuple[float, float]:
    """Return the statistic of the two-sample Kolmogorov-Smirnov test and its two-sided p-value."""
    from scipy.stats import ks_2samp  # noqa: PLC0415 - the process that only supervises children never needs it

    method = "auto" if reference.size * current.size <= _MOST_EXACT else "asymp"
    found = ks_2samp(reference, current, method=method)
    return float(found.statistic), float(found.pvalue)


def jensen_shannon(reference: pl.Series, current: pl.Series) -> float:
    """Return the Jensen-Shannon distance (natural logarithm) between the shares of the categories."""
    from scipy.spatial.distance import jensenshannon  # noqa: PLC0415 - likewise

    counts = [
        values.value_counts(name="count").rename({values.name: "category"}) for values in (reference, current)
    ]
    shares = (
        counts[0]
        .join(counts[1], on="category", how="full", coalesce=True)
        .select("count", "count_right")
        .fill_null(0)
    )
    return float(jensenshannon(shares["count"].to_numpy(), shares["count_right"].to_numpy()))
