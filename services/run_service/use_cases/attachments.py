"""Instances and runs as a question to lineage-service carries them: with the fields that it reads."""

from __future__ import annotations

from optaic.instance.v1.instance_pb2 import Instance
from optaic.lineage.v1.lineage_service_pb2 import AttachedRunEvent
from optaic.rules.events import RUN_PARTICIPLES
from optaic.run.v1.run_pb2 import PipelineResult, Run
from run_service.domain.statuses import RunStatus

_UNREAD_OF_INSTANCE = (
    "description", "owner", "labels", "config", "schedule", "upstream_refs", "conditions", "macro_version_ids",
    "status_aggregation_contract", "auto_refresh",
)  # fmt: skip
_UNREAD_OF_RUN = (
    "progress_message", "parameters", "metrics", "artifacts", "artifact_manifest", "outputs_uri", "model_artifact_version", "force_reason",
    "allow_deletion_reason", "code", "telemetry_pending",
)  # fmt: skip


def attached_instance(instance: Instance) -> Instance:
    """Return an instance without its configuration and its texts, which can be large."""
    attached = Instance()
    attached.CopyFrom(instance)
    for name in (*_UNREAD_OF_INSTANCE, attached.WhichOneof("spec")):
        if name is not None:
            attached.ClearField(name)  # type: ignore[arg-type]  # the type stubs require literals
    if (
        not attached.freshness_policy.frequency
    ):  # earlier releases accepted an update of its other fields alone
        attached.ClearField("freshness_policy")
    return attached


def attached_event(status: RunStatus, run: Run, event_id: str) -> AttachedRunEvent:
    """Return the last event of a run, which lineage-service may not have received yet."""
    attached = AttachedRunEvent(event_id=event_id)
    published: Run = getattr(attached, RUN_PARTICIPLES[status]).run
    published.CopyFrom(run)
    for name in _UNREAD_OF_RUN:
        published.ClearField(name)  # type: ignore[arg-type]  # the type stubs require literals
    if published.HasField("error"):
        published.error.ClearField("last_lines")
        published.error.ClearField("trace_uri")
    result = published.WhichOneof("result")
    rows = published.pipeline.rows_fetched
    if result is not None:
        published.ClearField(result)
    if rows:
        published.pipeline.CopyFrom(PipelineResult(rows_fetched=rows))
    return attached
