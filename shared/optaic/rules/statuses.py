"""The statuses of flows and instances, and which of them is more severe."""

from __future__ import annotations

ERROR, STALE, RUNNING, NOT_INITIALIZED, READY = "ERROR", "STALE", "RUNNING", "NOT_INITIALIZED", "READY"
SEVERITY = (ERROR, STALE, RUNNING, NOT_INITIALIZED, READY)  # most severe first
# What an instance's contract says where its definition says nothing; it gives the same order.
DEFAULT_PRIORITY = tuple(status for status in SEVERITY if status != NOT_INITIALIZED)
AGGREGATION = "min_severity"  # the most severe of the flows' statuses; the one method there is
