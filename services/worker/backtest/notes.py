"""Count what a backtest left out, guessed or could not do, and say it in words."""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from worker.backtest.execution import Path
from worker.backtest.settings import BacktestSettings, MissingPrices

_MOST_NAMES = 100  # in one list
_MOST_SAID = 5  # in one sentence
_NOTABLE = 0.05  # a share of the sessions


@dataclass(frozen=True)
class Notes:
    """The findings of the preparation."""

    members: int
    members_without_close: list[str]  # in the range
    left_out: int  # dates with a close of a member that are no session
    lacking: Mapping[str, int]  # on how many of them each member has no close; where every member needs one
    stale: list[str]
    delisted: list[str]
    sessions_before_begin: int  # left out because too few could be chosen
    warmup: int  # the same, inside of a range with a given start
    unmatched_signal_dates: int
    decisions: int
    decisions_without_choice: int
    decisions_without_members: int
    values_without_close: int  # values of members at decisions that could not be chosen for want of a close
    unpriced_members: list[str] = field(default_factory=list)  # of the membership, without any price
    benchmark_carried: int = 0  # sessions without a close of the named benchmark
    # The dates of decisions for which the optimizer found no weights, and what it said.
    unsolved: list[tuple[dt.date, str]] = field(default_factory=list)

    def metrics(self, path: Path, settings: BacktestSettings) -> dict[str, object]:
        """Return the counts by their public names, with `warnings`."""
        is_carried = settings.missing_prices is MissingPrices.CARRY
        return {
            "procedure": settings.procedure,
            "members": self.members,
            "members_without_close": len(self.members_without_close),
            "thin_dates": self.left_out if is_carried else 0,
            "dropped_sessions": 0 if is_carried else self.left_out,
            "dropped_session_members": dict(list(self.lacking.items())[:_MOST_NAMES]),
            "stale_prices": self.stale[:_MOST_NAMES],
            "stale_price_count": len(self.stale),
            "delisted": self.delisted[:_MOST_NAMES],
            "delisted_count": len(self.delisted),
            "sessions_before_start": self.sessions_before_begin,
            "warmup_sessions": self.warmup,
            "unmatched_signal_dates": self.unmatched_signal_dates,
            "decisions": self.decisions,
            "decisions_without_choice": self.decisions_without_choice,
            "decisions_without_members": self.decisions_without_members,
            "decisions_without_solution": len(self.unsolved),
            "values_without_close": self.values_without_close,
            "members_without_prices": len(self.unpriced_members),
            "benchmark_carried_sessions": self.benchmark_carried,
            "skipped_executions": path.skipped.executions,
            "untradable_choices": path.skipped.choices,
            "trades_without_volume": path.skipped.volumes,
            "warnings": list(self._warnings(path, settings)),
        }

    def _warnings(self, path: Path, settings: BacktestSettings) -> Iterator[str]:
        sessions = path.nav.size
        if self.left_out and settings.missing_prices is MissingPrices.CARRY:
            yield (
                f"{self.left_out} dates are no session, because fewer than {settings.min_session_coverage:.0%} of the members "
                "alive have a close; check the prices, or lower min_session_coverage"
            )
        if self.left_out and settings.missing_prices is MissingPrices.DROP_SESSION:
            worst = [f"{name} ({count})" for name, count in self.lacking.items()]
            yield (
                f"{self.left_out} dates are no session, because some member has no close: {_some(worst)}; set missing_prices to "
                "carry, or choose another universe"
            )
        if self.stale:
            yield (
                f"{len(self.stale)} members have no close at the end, and are valued at their last one: {_some(self.stale)}"
            )
        if self.members_without_close:
            names = _some(self.members_without_close)
            yield f"{len(self.members_without_close)} members have no close in the range: {names}"
        if self.unpriced_members:
            names = _some(self.unpriced_members)
            yield f"{len(self.unpriced_members)} entities of the membership have no price at all: {names}"
        if self.warmup > _NOTABLE * sessions:
            yield (
                f"{self.warmup} of {sessions} sessions are before the first decision with enough signals, and count in all "
                "figures; start later, or leave out date_range.start"
            )
        if self.unmatched_signal_dates:
            yield (
                f"{self.unmatched_signal_dates} dates of the signals are no session, so their values are never read; give "
                "the signals the dates of the prices"
            )
        yield from self._of_decisions(path, sessions)

    def _of_decisions(self, path: Path, sessions: int) -> Iterator[str]:
        if self.decisions_without_members:
            yield (
                f"{self.decisions_without_members} of {self.decisions} decisions are on dates for which the membership has no "
                "row, so nobody can be chosen; give it a row for each day and member"
            )
        if self.unsolved:
            first, why = self.unsolved[0]
            yield (
                f"the optimizer found no weights at {len(self.unsolved)} of {self.decisions} decisions, and the holdings stayed "
                f"as they were; the first is {first}: {why}"
            )
        if not any(one.decision is not None for one in path.executions):
            yield "nothing was ever executed, so the capital stayed cash; choose a longer range"
        if path.skipped.executions:
            yield f"{path.skipped.executions} executions were skipped: nobody chosen could be traded, or the capital was gone"
        if path.skipped.volumes:
            yield f"{path.skipped.volumes} trades have no volume; the rate of the model fixed was used for them"
        if self.benchmark_carried > _NOTABLE * sessions:
            yield (
                f"the benchmark has no close on {self.benchmark_carried} of {sessions} sessions, and is carried there"
            )


def _some(names: list[str]) -> str:
    more = len(names) - _MOST_SAID
    return ", ".join(names[:_MOST_SAID]) + (f" and {more} more" if more > 0 else "")
