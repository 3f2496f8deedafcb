"""The rule which file of a run is served: one of its manifest, in the run's own folder below the folder of all data."""

from __future__ import annotations

from optaic.common.v1.flow_pb2 import FlowKind
from optaic.rules.locations import is_inside, outputs_folder
from optaic.run.v1 import run_pb2
from servicekit.context import is_tenant_id
from servicekit.enums import enum_word


def find_artifact(run: run_pb2.Run, name: str, root: str) -> run_pb2.Artifact | None:
    """Return the entry of a file that the run itself has written; None if there is none.

    run-service has shown the run to the caller, and has checked its URIs when they were reported. They are checked once more,
    because this process can read the data of all tenants.
    """
    entry = next((each for each in run.artifact_manifest if each.name == name), None)
    if entry is None or not entry.uri.startswith(f"{root}/"):
        return None
    tenant_id = entry.uri.removeprefix(f"{root}/").partition("/")[0]
    flow_kind = enum_word(FlowKind, run.flow_kind)
    folder = outputs_folder(tenant_id, run.instance_id, flow_kind, run.run_id)
    is_own = is_tenant_id(tenant_id) and is_inside(entry.uri, folder, root)
    return entry if is_own and entry.uri.rstrip("/") != f"{root}/{folder}" else None


def is_below(path: str) -> bool:
    """Return whether a path leads to a file below a folder, and nowhere else."""
    return all(part not in {"", ".", ".."} for part in path.split("/"))
