"""The time limits of a removal of data: a claim must last longer than the worker's work on it."""

from __future__ import annotations

from datetime import timedelta

CLAIM = timedelta(minutes=15)  # no other worker gets a claimed removal during this time
LONGEST = timedelta(minutes=10)  # a worker gives up a removal after this, and needs time to report it
