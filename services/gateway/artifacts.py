"""The rules which files of a run are served: those of its manifest in the run's own folder, and its table in its flow's folder of data."""

from __future__ import annotations

import re
from dataclasses import dataclass

from optaic.common.v1.flow_pb2 import FlowKind
from optaic.rules.locations import data_folder, is_inside, outputs_folder
from optaic.run.v1 import run_pb2
from servicekit.context import is_tenant_id
from servicekit.enums import enum_word

_ID = "[0-9a-f-]{36}"
_TABLE = re.compile(
    rf"(?P<root>.+)/(?P<tenant>[^/]+)/(?P<instance>{_ID})/(?P<kind>[a-z_]+)/(data|runs/{_ID})(/.*)?",
    re.DOTALL,
)
_FILE = re.compile(
    rf"(?P<root>.+)/(?P<tenant>[^/]+)/(?P<instance>{_ID})/(?P<kind>[a-z_]+)/runs/(?P<run>{_ID})/.*[^/]",
    re.DOTALL,
)


@dataclass(frozen=True)
class Location:
    """The place of a run's file: the folder of all data, and the run below it that has written it."""

    root: str
    instance_id: str
    flow_kind: str
    run_id: str


def locate(uri: str) -> Location | None:
    """Return the place that a URI names; None if it is no file in the folder of a run.

    run-service has checked a run's URIs when they were reported. They are checked once more, because this process can read the data
    of all tenants.
    """
    found = _FILE.fullmatch(uri)
    if found is None or not is_tenant_id(found["tenant"]):
        return None
    location = Location(found["root"], found["instance"], found["kind"], found["run"])
    folder = outputs_folder(found["tenant"], location.instance_id, location.flow_kind, location.run_id)
    return location if is_inside(uri, folder, location.root) else None


def find_artifact(run: run_pb2.Run, name: str) -> tuple[run_pb2.Artifact, str] | None:
    """Return the entry of a file that the run itself has written, and the folder of all data that has it; None if there is none.

    run-service has shown the run to the caller.
    """
    entry = next((each for each in run.artifact_manifest if each.name == name), None)
    location = locate(entry.uri) if entry else None
    if entry is None or location is None:
        return None
    own = Location(location.root, run.instance_id, enum_word(FlowKind, run.flow_kind), run.run_id)
    return (entry, location.root) if location == own else None


def find_data(run: run_pb2.Run) -> tuple[str, str] | None:
    """Return the folder of the table that a run has written, and the folder of all data that has it; None if it lies elsewhere.

    run-service has checked it, and has shown the run to the caller.
    """
    uri = run.output_version.uri.rstrip("/")
    found = _TABLE.fullmatch(uri)
    if found is None or not is_tenant_id(found["tenant"]):
        return None
    flow = (found["tenant"], run.instance_id, enum_word(FlowKind, run.flow_kind))
    folders = (data_folder(*flow), outputs_folder(*flow, run.run_id))
    return (uri, found["root"]) if any(is_inside(uri, each, found["root"]) for each in folders) else None
