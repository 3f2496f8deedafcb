"""How long the campaigns are, and their seeds."""

from __future__ import annotations

import os
import random

IS_FULL = os.environ.get("OPTAIC_FAULTS") == "full"


def count(name: str, piece: int, full: int) -> int:
    """Return how much a campaign does: a variable of this name says so, else what `make test` or `make test-faults` does."""
    return int(os.environ.get(name, full if IS_FULL else piece))


def seeds(number: int) -> list[int]:
    """Return seeds, other ones each time; with OPTAIC_SEED this one alone, to repeat what has failed.

    pytest shows what a failed test has printed, so a test prints its seed.
    """
    if given := os.environ.get("OPTAIC_SEED"):
        return [int(given)]
    return [random.SystemRandom().getrandbits(32) for _ in range(number)]


def begin(seed: int) -> random.Random:
    """Print a seed, and return what follows from it."""
    print(f"OPTAIC_SEED={seed}")  # noqa: T201 - for whoever repeats it
    return random.Random(seed)
