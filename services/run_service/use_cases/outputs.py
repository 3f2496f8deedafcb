"""Check that a run's outputs lie where its flow's data belongs."""

from __future__ import annotations

from collections.abc import Iterable

from optaic.rules.artifacts import find_manifest_problems
from optaic.rules.locations import data_folder, flow_folder, is_inside, outputs_folder, relocate
from optaic.run.v1 import run_report_service_pb2
from run_service.domain.errors import invalid_fields, output_misplaced
from run_service.store.records import Record
from servicekit.errors import FieldViolation

_Report = run_report_service_pb2.CompleteRunRequest | run_report_service_pb2.FailRunRequest


def check_completion(
    data_root: str, tenant_id: str, record: Record, request: run_report_service_pb2.CompleteRunRequest
) -> None:
    """Refuse a completion whose version, outputs or artifacts lie elsewhere.

    Raises:
        InvalidArgumentError: OUTPUT_MISPLACED; INVALID_ARGUMENT: the manifest does not fit the artifacts.
    """
    named = [("output_version.uri", request.output_version.uri)]
    if request.outputs_uri:
        named.append(("outputs_uri", request.outputs_uri))
    if request.monitoring.report_uri:
        named.append(("monitoring.report_uri", request.monitoring.report_uri))
    _check(data_root, tenant_id, record, [*named, *_artifacts(request.artifacts.items())])
    _check_manifest(tenant_id, record, request)


def check_failure(
    data_root: str, tenant_id: str, record: Record, request: run_report_service_pb2.FailRunRequest
) -> None:
    """Refuse a failure whose traceback or artifacts lie elsewhere; raises as `check_completion`."""
    named = [("error.trace_uri", request.error.trace_uri)] if request.error.trace_uri else []
    _check(data_root, tenant_id, record, [*named, *_artifacts(request.artifacts.items())])
    _check_manifest(tenant_id, record, request)


def _check_manifest(tenant_id: str, record: Record, request: _Report) -> None:
    """Refuse a manifest that lacks an artifact of the run's own folder, or names what is none of them."""
    if not request.artifact_manifest:  # of a worker of an earlier release, or there is no such artifact
        return
    folder = outputs_folder(tenant_id, record.run.instance_id, record.flow_kind, record.run.run_id)
    own = {name: uri for name, uri in request.artifacts.items() if is_inside(uri, folder)}
    if problems := find_manifest_problems(own, request.artifact_manifest):
        raise invalid_fields(
            [FieldViolation(field, text, "INVALID_ARGUMENT") for field, text in problems.items()]
        )


def root_of(data_root: str, record: Record) -> str:
    """Return where the data of a run's tenant lies: below the data root of the installation, unless it was moved."""
    return record.moved_roots.get(data_root, data_root)


def _artifacts(artifacts: Iterable[tuple[str, str]]) -> list[tuple[str, str]]:
    return [(f"artifacts[{name!r}]", uri) for name, uri in artifacts]


def _check(data_root: str, tenant_id: str, record: Record, named: Iterable[tuple[str, str]]) -> None:
    data_root = root_of(data_root, record)
    flow = (tenant_id, record.run.instance_id, record.flow_kind)
    folders = (data_folder(*flow), outputs_folder(*flow, record.run.run_id))
    misplaced = [
        field
        for field, uri in named
        if not any(is_inside(uri, folder, data_root) for folder in folders)
        # Where the data root is not known, a former one is.
        or relocate(uri, tenant_id, record.moved_roots) != uri
    ]
    if misplaced:
        raise output_misplaced(misplaced, flow_folder(*flow))
