"""The times of probing sources: how long a worker may take, and when another worker may probe instead."""

from __future__ import annotations

from datetime import timedelta

LONGEST = timedelta(seconds=60)
CLAIM = timedelta(minutes=2)
