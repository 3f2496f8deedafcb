"""The errors of status-service: one function for each, so that every error has one wording."""

from __future__ import annotations

from collections.abc import Collection
from datetime import datetime

from optaic.rules import refusals
from servicekit.errors import (
    FailedPreconditionError,
    FieldViolation,
    InvalidArgumentError,
    NotFoundError,
    OutOfRangeError,
    ResourceExhaustedError,
)


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


def history_not_kept(field: str, start_time: datetime) -> OutOfRangeError:
    """Return the refusal STATUS_HISTORY_NOT_KEPT for a time before the history that is kept."""
    return OutOfRangeError(
        "STATUS_HISTORY_NOT_KEPT",
        f"{field}: history is kept from {start_time.isoformat()} on; ask for that or a later time",
        metadata={"start_time": start_time.isoformat()},
    )


def revision_not_kept(field: str, first_revision: int | None) -> OutOfRangeError:
    """Return the refusal STATUS_HISTORY_NOT_KEPT for a revision of lineage before the first one that can be shown, if there is one."""
    if first_revision is None:
        what = "no revision of lineage is recorded yet; ask for a time"
        return OutOfRangeError("STATUS_HISTORY_NOT_KEPT", f"{field}: {what}")
    return OutOfRangeError(
        "STATUS_HISTORY_NOT_KEPT",
        f"{field}: history is kept from revision {first_revision} of lineage on; ask for that or a later one, or for a time",
        metadata={"start_revision": str(first_revision)},
    )


def window_is_empty(field: str) -> InvalidArgumentError:
    """Return the refusal INVALID_WINDOW of a window that ends before it begins, or begins in the future."""
    text = "must be before the end of the window, and the window ends now at the latest; send an earlier start or a later end"
    violation = FieldViolation(field, text, "INVALID_WINDOW")
    return InvalidArgumentError("INVALID_WINDOW", f"{field} {text}", field_violations=[violation])


def causes_not_kept() -> InvalidArgumentError:
    """Return the refusal CAUSES_NOT_KEPT to search the past by cause."""
    field = "cause_kinds"
    text = "must be empty with as_of, because the history has no causes; omit one of the two"
    violation = FieldViolation(field, text, "CAUSES_NOT_KEPT")
    return InvalidArgumentError("CAUSES_NOT_KEPT", f"{field} {text}", field_violations=[violation])


def runs_not_newest(run_ids: Collection[str]) -> NotFoundError:
    """Return the refusal RUN_NOT_NEWEST, naming every missing id."""
    missing = ", ".join(sorted(run_ids))
    return NotFoundError(
        "RUN_NOT_NEWEST",
        f"run_ids: {missing}: not the newest run of a flow of one of instance_ids; name the instance of each run, "
        "and only runs after which none was submitted",
        metadata={"run_ids": missing},
    )


def realtime_not_configured() -> FailedPreconditionError:
    """Return the refusal REALTIME_NOT_CONFIGURED."""
    return FailedPreconditionError(
        "REALTIME_NOT_CONFIGURED",
        "this installation gives no tokens for live messages; set OPTAIC_CENTRIFUGO_TOKEN_KEY of status-service, "
        "or call WatchInstanceStatuses",
    )


def channels_name_tenants() -> FailedPreconditionError:
    """Return the refusal CHANNELS_NAME_TENANTS."""
    return FailedPreconditionError(
        "CHANNELS_NAME_TENANTS",
        "channels without a tenant exist only where `default` is the one tenant; omit without_tenant",
    )
