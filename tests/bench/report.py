"""The shape of a benchmark's result; it measures nothing."""

from __future__ import annotations

from typing import NamedTuple


class Row(NamedTuple):
    """One figure, beside what a bare peer took in the same run."""

    name: str
    value: float
    unit: str
    peer: float | None = None
    ratio: float | None = None
    limit: float | None = None  # how large the ratio may be on a quiet machine
