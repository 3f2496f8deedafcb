"""Decide when to restart a program that runs but does not answer: after a delay, a limited number of times."""

from collections import deque
from dataclasses import dataclass, field
from typing import Literal

Verdict = Literal["well", "wait", "restart", "give up"]

_HOUR_SECONDS = 3600.0


@dataclass(frozen=True)
class Patience:
    """The limits on silence: how long a program may fail to answer, and how often it is restarted for it."""

    interval_seconds: float = 5.0  # between questions
    silent_seconds: float = 60.0  # twice as long with every restart within the hour
    restarts_per_hour: int = 5


@dataclass
class Liveness:
    """The record of one program's answers, over its restarts; it decides when to restart it."""

    patience: Patience = field(default_factory=Patience)
    _silent_since: float | None = None
    _restarts: deque[float] = field(default_factory=deque)

    def judge(self, problem: str, now: float) -> Verdict:
        """Record one answer, empty if the program is well; times are seconds of one clock."""
        while self._restarts and now - self._restarts[0] > _HOUR_SECONDS:
            self._restarts.popleft()
        if not problem:
            self._silent_since = None
            return "well"
        if self._silent_since is None:
            self._silent_since = now
        if now - self._silent_since < self.patience.silent_seconds * 2 ** len(self._restarts):
            return "wait"
        if len(self._restarts) >= self.patience.restarts_per_hour:
            return "give up"
        self._silent_since = None
        self._restarts.append(now)
        return "restart"

    def silent_seconds(self, now: float) -> float:
        """Return for how many seconds the program has not answered."""
        return 0.0 if self._silent_since is None else now - self._silent_since
