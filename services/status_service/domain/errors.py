"""Build the errors of status-service."""

from __future__ import annotations

from collections.abc import Collection

from servicekit.errors import NotFoundError, OutOfRangeError, ResourceExhaustedError


def instances_not_found(instance_ids: Collection[str]) -> NotFoundError:
    """Return the refusal INSTANCE_NOT_FOUND, naming every missing id."""
    named = ", ".join(sorted(instance_ids))
    return NotFoundError(
        "INSTANCE_NOT_FOUND",
        f"status-service has no status of instance {named}; check the id, or retry in a few seconds if the instance is new",
        metadata={"instance_ids": named},
    )


def flow_not_found(instance_id: str, instance_name: str, flow_kind: str) -> NotFoundError:
    """Return the refusal FLOW_NOT_FOUND."""
    return NotFoundError(
        "FLOW_NOT_FOUND",
        f"flow_kind: instance {instance_name} has no {flow_kind} flow; choose one of its flows",
        metadata={"instance_id": instance_id, "flow_kind": flow_kind},
    )


def revision_compacted(position: int, compacted_revision: int, revision: int) -> OutOfRangeError:
    """Return the refusal REVISION_COMPACTED."""
    return OutOfRangeError(
        "REVISION_COMPACTED",
        f"changes are kept after revision {compacted_revision} up to {revision}, "
        f"not from {position}; begin again without from_revision",
        metadata={"oldest_revision": str(compacted_revision), "revision": str(revision)},
    )


def watcher_too_slow(buffer_size: int) -> ResourceExhaustedError:
    """Return the refusal WATCHER_TOO_SLOW."""
    return ResourceExhaustedError(
        "WATCHER_TOO_SLOW",
        f"more than {buffer_size} changes wait to be read; resume from the last revision you have",
    )
