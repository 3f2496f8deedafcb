"""Compute how long to wait before a further attempt."""

from __future__ import annotations

import random

_MOST_DOUBLINGS = 64


def backoff(attempt: int, *, first: float, longest: float, jitter: float = 0.0) -> float:
    """Return the seconds to wait after failed attempt `attempt`, counted from 1.

    The wait is `first` after the first failure and doubles with each further one, up to `longest`. With `jitter` it is
    then spread evenly over (1 - jitter, 1 + jitter) times that, so that replicas do not try at the same moment.
    """
    wait = min(longest, first * 2 ** min(attempt - 1, _MOST_DOUBLINGS))
    return float(wait * random.uniform(1 - jitter, 1 + jitter)) if jitter else float(wait)  # noqa: S311 - no secret
