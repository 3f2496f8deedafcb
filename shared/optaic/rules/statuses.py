"""The statuses of flows and instances, in the order of their severity."""

from __future__ import annotations

ERROR, STALE, RUNNING, NOT_INITIALIZED, READY = "ERROR", "STALE", "RUNNING", "NOT_INITIALIZED", "READY"
SEVERITY = (ERROR, STALE, RUNNING, NOT_INITIALIZED, READY)  # most severe first
# The priorities in an instance's contract if its definition sets none; they give the same order.
DEFAULT_PRIORITY = tuple(status for status in SEVERITY if status != NOT_INITIALIZED)
# The ways in which the statuses of flows become that of their instance; the first is the default.
MIN_SEVERITY, MAJORITY, REQUIRED_FLOWS = "min_severity", "majority", "required_flows"
AGGREGATIONS = (MIN_SEVERITY, MAJORITY, REQUIRED_FLOWS)
