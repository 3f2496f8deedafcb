"""The rule which files of the folders of runs belong to their runs; opens nothing."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from datetime import datetime

from optaic.common.v1 import flow_pb2
from optaic.run.v1 import run_pb2, run_service_pb2
from servicekit.enums import enum_word
from worker.leftovers.naming import Flow, Leftover, output_path

_KEEPS_ARTIFACTS = frozenset({run_pb2.RUN_STATUS_FAILED, run_pb2.RUN_STATUS_CANCELLED})
_ENDED = _KEEPS_ARTIFACTS | {run_pb2.RUN_STATUS_COMPLETED}


def find_unowned(
    flow_kind: str, flow: Flow, runs: Mapping[str, run_service_pb2.RunOutputs], before: datetime
) -> Iterator[Leftover]:
    """Yield the files of runs which their runs do not keep, and the files of runs that there never were.

    Args:
        flow_kind: lower case, without prefix.
        flow: its files, listed before the runs were read.
        runs: all runs of the instance by id.
        before: only files that were changed before this.
    """
    for run_id, files in flow.outputs.items():
        run = runs.get(run_id)
        if run is not None and flow_of(run) != flow_kind:
            run = None  # run ids are of one flow
        for file in files:
            if file.changed < before and not _keeps(run, file.path):
                reason = "no run has this id" if run is None else "the run ended without it"
                yield Leftover(output_path(flow_kind, run_id, file.path), file.size, reason)


def list_active_flows(runs: Mapping[str, run_service_pb2.RunOutputs]) -> set[str]:
    """Return the flows one of whose runs may still write; a status of a later release may be that of such a run."""
    return {flow_of(run) for run in runs.values() if run.status not in _ENDED}


def list_versions(flow_kind: str, runs: Mapping[str, run_service_pb2.RunOutputs]) -> set[str]:
    """Return the versions of a flow's data which its completed runs keep, as its store calls them."""
    return {
        run.physical_version for run in runs.values() if run.physical_version and flow_of(run) == flow_kind
    }


def flow_of(run: run_service_pb2.RunOutputs) -> str:
    """Return the kind of a run's flow, in lower case, without prefix."""
    return enum_word(flow_pb2.FlowKind, run.flow_kind)


def _keeps(run: run_service_pb2.RunOutputs | None, path: str) -> bool:
    """Return whether a run keeps a file; a status of a later release keeps all."""
    if run is None:
        return False
    if run.status not in _KEEPS_ARTIFACTS:
        return True
    return any(not kept or path == kept or path.startswith(f"{kept}/") for kept in run.paths)
