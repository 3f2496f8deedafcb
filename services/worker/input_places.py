"""Check that what a run is to read lies where its flow's data belongs, whatever run-service was told."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping

from optaic.common.v1 import flow_pb2
from optaic.instance.v1 import instance_pb2
from optaic.plugins import PluginError
from optaic.rules.locations import data_folder, is_inside, outputs_folder
from optaic.rules.sources import URL
from optaic.run.v1 import run_pb2, run_report_service_pb2
from servicekit.enums import enum_word

_TRAINING = flow_pb2.FLOW_KIND_TRAINING
_ON_A_BASE = (
    flow_pb2.FLOW_KIND_REFRESH,
    flow_pb2.FLOW_KIND_OPTIMIZE,
    flow_pb2.FLOW_KIND_INFERENCE,
)  # flows that build on their previous version


def check_places(tenant_id: str, run: run_pb2.Run, upstreams: Iterable[instance_pb2.Instance]) -> None:
    """Refuse a run whose inputs or base are another flow's data; the data root may have been moved since.

    The data of another system lies where the store of its instance says, at the revision that is pinned.

    Raises:
        PluginError: InputMisplaced.
    """
    elsewhere = _find_external(upstreams)
    for name, uri, instance_id, flow_kind in _list_places(run):
        if (place := elsewhere.get((instance_id, flow_kind))) is None:
            _check(name, uri, data_folder(tenant_id, instance_id, enum_word(flow_pb2.FlowKind, flow_kind)))
        elif uri and uri != place:
            raise PluginError(
                f"{name} is recorded in another place than its store reads, so it is not read; report its version again",
                type="InputMisplaced",
            )


def _find_external(
    upstreams: Iterable[instance_pb2.Instance],
) -> Mapping[tuple[str, flow_pb2.FlowKind.ValueType], str]:
    """Return where the data of external flows lies."""
    return {
        (upstream.instance_id, flow.flow_kind): upstream.dataset.store.config.fields[URL].string_value
        for upstream in upstreams
        for flow in upstream.flows
        if flow.is_external
    }


def check_trainings(
    tenant_id: str, instance_id: str, versions: Iterable[run_report_service_pb2.TrainedVersion]
) -> None:
    """Refuse trained versions that are not in the folders of the runs that made them; raises as `check_places`."""
    flow = enum_word(flow_pb2.FlowKind, _TRAINING)
    for each in versions:
        folder = outputs_folder(tenant_id, instance_id, flow, each.run_id)
        _check(f"training run {each.run_id}", each.uri, folder)


def _check(name: str, uri: str, folder: str) -> None:
    if uri and not is_inside(uri, folder):
        raise PluginError(
            f"{name} is recorded outside of its flow's folder <data root>/{folder}, so it is not read; "
            "run its flow again",
            type="InputMisplaced",
        )


def _list_places(run: run_pb2.Run) -> Iterator[tuple[str, str, str, flow_pb2.FlowKind.ValueType]]:
    for pinned in run.input_versions:
        if pinned.flow_kind != _TRAINING:  # whose output is the folder of a run
            yield (
                f"upstream {pinned.instance_name or pinned.instance_id}",
                pinned.uri,
                pinned.instance_id,
                pinned.flow_kind,
            )
    if run.flow_kind in _ON_A_BASE:
        yield "the previous version", run.base_version.uri, run.instance_id, run.flow_kind
