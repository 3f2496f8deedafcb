"""The lines of a run's log, and positions between them."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import NamedTuple, TypeAlias

PlacedLine: TypeAlias = "tuple[LogLine, Position]"  # with the position after it
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)


class LogLine(NamedTuple):
    """One line, as the orchestrator keeps it; lines sort by time."""

    time: int  # in microseconds since 1970
    level: int  # as Python's `logging` counts
    logger: str
    message: str


class Position(NamedTuple):
    """The place after a line. A worker gives each line of a run another time; lines of others may share one."""

    time: int = 0
    number: int = 0  # of the lines of that time that lie before it


def micros_of(moment: datetime) -> int:
    """Convert a time into microseconds since 1970."""
    return (moment - _EPOCH) // _MICROSECOND


def moment_of(micros: int) -> datetime:
    """Convert microseconds since 1970 into a time."""
    return _EPOCH + micros * _MICROSECOND


def lines_after(lines: Sequence[LogLine], position: Position) -> list[PlacedLine]:
    """Return the lines behind a position, in order; `lines` has all lines of its time, and some of those that follow.

    A line that was delivered twice, because no answer came, counts once.
    """
    placed: list[PlacedLine] = []
    for line in sorted(set(lines)):
        before = placed[-1][1] if placed else Position(position.time)
        place = Position(line.time, before.number + 1 if line.time == before.time else 1)
        placed.append((line, place))
    return [each for each in placed if each[1] > position]
