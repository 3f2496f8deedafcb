"""Check the instances whose data another system writes: no run computes them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from instance_service.resources.conversion import dataset_of
from instance_service.resources.instances.references import Use
from optaic.instance.v1.instance_pb2 import AutoRefresh, Instance
from servicekit.errors import FieldViolation

_PIPELINE, _STORE = "pipeline", "store"


def is_external(uses: Iterable[Use]) -> bool:
    """Return whether another system writes the data of a dataset."""
    return any(use.reference.slot == _STORE and use.version.is_external for use in uses)


def external_violations(
    instance: Instance, current: Instance | None, uses: Iterable[Use]
) -> Iterator[FieldViolation]:
    """Yield what does not go together with data that another system writes."""
    used = {use.reference.slot: use for use in uses}
    if dataset_of(instance) is None or _PIPELINE not in used or _STORE not in used:
        return
    pipeline, store = used[_PIPELINE], used[_STORE]
    external = store.version.is_external
    if external != pipeline.version.is_external:
        text = (
            "computes data, but the store reads data that another system writes; use the pipeline `external`"
            if external
            else "computes nothing, so the store must be one that reads in place; use the store `external`"
        )
        yield FieldViolation(pipeline.reference.path, text, "INVALID_SPEC")
        return
    if current is not None and external != any(flow.is_external for flow in current.flows):
        text = (
            "cannot change between data of another system and data that runs write; create another instance"
        )
        yield FieldViolation(store.reference.path, text, "INVALID_SPEC")
    if not external:
        return
    if instance.HasField("signal"):
        text = (
            "reads data that no run checks, so no contract can be enforced on it; create a dataset, and a signal that "
            "reads the dataset"
        )
        yield FieldViolation(store.reference.path, text, "INVALID_SPEC")
    text = "cannot be set, because no run computes the data; remove it, and report versions when they come"
    if instance.schedule.WhichOneof("timing") in {"cron", "interval"}:
        yield FieldViolation("instance.schedule", text, "INVALID_SCHEDULE")
    if instance.auto_refresh.mode not in {AutoRefresh.MODE_UNSPECIFIED, AutoRefresh.MODE_OFF}:
        yield FieldViolation("instance.auto_refresh", text, "INVALID_SPEC")
    if instance.HasField("probe_interval"):
        yield FieldViolation("instance.probe_interval", text, "INVALID_SPEC")
