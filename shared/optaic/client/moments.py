"""Accept a moment of the past as a revision, a time or a run; call nothing."""

from __future__ import annotations

from datetime import datetime

from optaic.lineage.v1.lineage_service_pb2 import AsOf
from optaic.run.v1.run_pb2 import Run

MomentLike = int | datetime | Run | AsOf


def moment(given: MomentLike) -> AsOf:
    """Return a moment as a message; a run means what it saw.

    Raises:
        ValueError: The time has no time zone, or no lineage revision is recorded for the run.
    """
    if isinstance(given, AsOf):
        return given
    if isinstance(given, Run):
        if not given.lineage_revision:
            raise ValueError(f"no lineage revision is recorded for run {given.run_id}; give a time instead")
        return AsOf(revision=given.lineage_revision)
    if isinstance(given, int):
        return AsOf(revision=given)
    if given.tzinfo is None:
        raise ValueError(f"as_of: {given.isoformat()} has no time zone; give one, for example datetime.UTC")
    message = AsOf()
    message.time.FromDatetime(given)
    return message
