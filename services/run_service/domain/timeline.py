"""Word the entries of a run's timeline."""

from __future__ import annotations

from collections.abc import Collection

_LONGEST_SUMMARY = 1_000


def activity_type(kind: str, happening: str) -> str:
    """Return the type of a timeline entry, for example `pipeline_run.started`."""
    return f"{kind}_run.{happening}"


def summarize_columns(added: Collection[str], removed: Collection[str], retyped: Collection[str]) -> str:
    """Describe how a completed run changed the columns of its output; empty if it did not."""
    found = {"new columns": added, "columns gone": removed, "columns of another type": retyped}
    parts = [f"{what}: {', '.join(names)}" for what, names in found.items() if names]
    return "; ".join(parts)[:_LONGEST_SUMMARY]
