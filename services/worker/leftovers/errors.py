"""The refusal to say which files are leftovers."""

from __future__ import annotations


class UnclearError(Exception):
    """Which files versions have cannot be said, so none is a leftover; the message says why."""
