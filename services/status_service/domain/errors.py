"""The errors of status-service: one function for each, so that every error has one wording."""

from __future__ import annotations

from collections.abc import Collection

from optaic.rules import refusals
from servicekit.errors import NotFoundError, OutOfRangeError, ResourceExhaustedError


def instances_not_found(instance_ids: Collection[str]) -> NotFoundError:
    """Return the refusal INSTANCE_NOT_FOUND, naming every missing id."""
    text, metadata = refusals.instance_not_found(sorted(instance_ids))
    return NotFoundError("INSTANCE_NOT_FOUND", text, metadata=metadata)


def flow_not_found(instance_id: str, flow_kind: str) -> NotFoundError:
    """Return the refusal FLOW_NOT_FOUND."""
    text, metadata = refusals.flow_not_found(instance_id, flow_kind)
    return NotFoundError("FLOW_NOT_FOUND", text, metadata=metadata)


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
