"""The shape of a benchmark's result, and the table of them; it measures nothing."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple


class Row(NamedTuple):
    """One figure, beside what a bare peer took in the same run."""

    name: str
    value: float
    unit: str
    peer: float | None = None
    ratio: float | None = None


def table(rows: Iterable[Row]) -> str:
    """Return the figures as aligned text."""
    lines = [("", "value", "unit", "peer", "ratio")]
    for row in rows:
        peer = "" if row.peer is None else f"{row.peer:,.2f}"
        ratio = "" if row.ratio is None else f"{row.ratio:.1f}x"
        lines.append((row.name, f"{row.value:,.2f}", row.unit, peer, ratio))
    widths = [max(len(line[column]) for line in lines) for column in range(len(lines[0]))]
    return "\n".join(
        "  ".join(
            cell.ljust(width) if column in {0, 2} else cell.rjust(width)
            for column, (cell, width) in enumerate(zip(line, widths, strict=True))
        ).rstrip()
        for line in lines
    )
