"""The names of events, the streams that keep them, and their largest size."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

INSTANCE_EVENTS = "INSTANCE_EVENTS"
RUN_EVENTS = "RUN_EVENTS"
LINEAGE_EVENTS = "LINEAGE_EVENTS"
STATUS_EVENTS = "STATUS_EVENTS"
# The subjects that each stream keeps; the service that publishes them makes the stream.
STREAMS: Mapping[str, Sequence[str]] = {
    INSTANCE_EVENTS: ("optaic.*.instance.v1.>", "optaic.*.definition.v1.>"),
    RUN_EVENTS: ("optaic.*.run.v1.>",),
    LINEAGE_EVENTS: ("optaic.*.lineage.v1.>",),
    STATUS_EVENTS: ("optaic.*.status.v1.>",),
}
# The durable consumers of each service with the stream that each reads. A name never changes: the broker keeps its position.
CONSUMERS: Mapping[str, Mapping[str, str]] = {
    "instance": {"instance-service": LINEAGE_EVENTS, "instance-run-events": RUN_EVENTS},
    "run": {"run-lineage": LINEAGE_EVENTS, "run-instance": INSTANCE_EVENTS, "run-access": INSTANCE_EVENTS},
    "lineage": {
        "lineage-instance-events": INSTANCE_EVENTS,
        "lineage-run-events": RUN_EVENTS,
        "lineage-access": INSTANCE_EVENTS,
    },
    "status": {
        "status-instance-events": INSTANCE_EVENTS,
        "status-lineage-events": LINEAGE_EVENTS,
        "status-run-events": RUN_EVENTS,
        "status-access": INSTANCE_EVENTS,
    },
}
# The name of the event for each status that a run reaches.
RUN_PARTICIPLES: Mapping[str, str] = {
    "pending": "submitted",
    "running": "started",
    "completed": "completed",
    "failed": "failed",
    "cancelled": "cancelled",
}
# The subject of changed bindings of roles, of which every service keeps a copy.
ROLE_BINDING_SUBJECTS = ("optaic.*.instance.v1.role_binding_changed.*",)
RUN_PROGRESSED = "progressed"  # the event of a run that stays running
ALERT_RAISED = "monitoring_alert_raised"  # a figure of a completed monitoring crossed its threshold
FLOW_WAIT_CHANGED = (
    "flow_wait_changed"  # a scheduled time waits for other upstream flows than before, or no more
)
REFRESH_SUBMITTED = "refresh_submitted"
REFRESH_RESUMED = "refresh_resumed"
REFRESH_ENDED = "refresh_ended"
# The subjects of every event that moves a run to another status.
RUN_SUBJECTS = tuple(f"optaic.*.run.v1.{participle}.*" for participle in RUN_PARTICIPLES.values())
CHUNK_BYTES = 256_000  # the largest message of an event about many resources
