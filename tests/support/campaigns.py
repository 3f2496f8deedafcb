"""How long the campaigns are, and their seeds."""

from __future__ import annotations

import os
import random

IS_FULL = os.environ.get("OPTAIC_FAULTS") == "full"


def count(name: str, piece: int, full: int) -> int:
    """Return how much a campaign does: a variable of this name says so, else what `make test` or `make test-faults` does."""
    return int(os.environ.get(name, full if IS_FULL else piece))


def begin() -> random.Random:
    """Print a seed, another one each time, and return what follows from it; OPTAIC_SEED repeats what has failed.

    pytest shows what a failed test has printed. A seed is no part of a test's name: the processes of a session must find
    the same tests.
    """
    seed = int(os.environ.get("OPTAIC_SEED") or random.SystemRandom().getrandbits(32))
    print(f"OPTAIC_SEED={seed}")  # noqa: T201 - for whoever repeats it
    return random.Random(seed)
