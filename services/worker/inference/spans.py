"""Decide which dates each trained version predicts: only those on which all that it has learnt was known."""

from __future__ import annotations

import datetime as dt
from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Knowledge:
    """The last labels that a trained version has learnt."""

    train_end: dt.date  # the date of the last of them
    label_end: dt.date  # the session on which it became known

    @property
    def first_date(self) -> dt.date:
        """The first date that the version may predict."""
        return max(self.train_end + dt.timedelta(days=1), self.label_end)


@dataclass(frozen=True)
class Span:
    """The dates from `start` until before `end`, which one version predicts; without an end it predicts all later ones."""

    position: int  # of the version
    start: dt.date
    end: dt.date | None


def plan_spans(versions: Sequence[Knowledge]) -> list[Span]:
    """Give each date to the last of the versions that may predict it.

    Args:
        versions: in the order of `train_end`; the last one is the version that is read, and a later one is not among them.

    Returns:
        The spans in the order of their dates, without gaps between them; a version without a date has none.
    """
    spans: list[Span] = []
    end: dt.date | None = None
    for position in reversed(range(len(versions))):
        start = versions[position].first_date
        if end is None or start < end:
            spans.append(Span(position, start, end))
            end = start
    return spans[::-1]
