"""The names and tags of what MLflow and Evidently hold for an instance or a run."""

from __future__ import annotations

NAME_TAG = "optaic.name"  # of an experiment: by it the experiment is found even if it was renamed
RUN_TAG = "optaic.run_id"  # of a run in MLflow: the run that it belongs to


def counterpart_name(tenant_id: str, instance_id: str) -> str:
    """Return the name of an instance's counterpart in an outside system; it never changes."""
    return f"{tenant_id}.{instance_id}"
