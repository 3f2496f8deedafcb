"""The names of the files that built-in stores and runs write, and what a leftover is; opens nothing."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import timedelta

from optaic.storage import File

MARGIN = timedelta(days=1)  # younger files may belong to what is just being written
_FLOW = re.compile(r"[a-z_]+")
_RUN = re.compile(
    r"[a-z_]+/runs/([0-9a-f]{8}-[0-9a-f]{4}-7[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12})/.*", re.DOTALL
)
_UUID = "[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}"
# A name that any other store might give is not in these.
PART = re.compile(rf"part-[0-9]{{5}}-{_UUID}-c[0-9]{{3}}(?:\.[a-z0-9]+)?\.parquet")
LOG = "_delta_log/"
LOG_ENTRY = re.compile(r"_delta_log/([0-9]{20})\.json")
LOG_NUMBER = re.compile(
    r"(?<=[/.])[0-9]{20}(?=\.)"
)  # in the name of a file of the log: an entry that there is, or was
LAST_CHECKPOINT = "_delta_log/_last_checkpoint"
DELTA_VERSION = re.compile(r"[0-9]{1,18}")
PARQUET_VERSION = re.compile(r"[0-9a-f]{64}(?:-[0-9a-f]{16})?")
VERSION_FILE = re.compile(rf"(?P<version>{PARQUET_VERSION.pattern})/{_UUID}-data\.parquet")
MANIFEST = "manifest.json"
# Names under which a file is written before it is renamed; nobody reads it there.
_DRAFTS = (
    re.compile(rf"{PARQUET_VERSION.pattern}/{_UUID}-manifest\.json"),
    re.compile(rf"_days/{_UUID}-[0-9]{{1,18}}\.json"),
    re.compile(rf"_delta_log/_commit_{_UUID}\.json\.tmp"),
    re.compile(r"(?:_delta_log/[0-9]{20}\.(?:json|checkpoint\.parquet)|_delta_log/_last_checkpoint)#[0-9]+"),
    re.compile(rf"{PART.pattern}#[0-9]+"),
)


@dataclass(frozen=True)
class Leftover:
    """A file that no run and no version has."""

    path: str  # below the instance's folder
    size: int
    reason: str
    upload: str = ""  # the id of an upload in parts that nobody has completed; empty: it is a file


@dataclass(frozen=True)
class Flow:
    """The files of one flow, of which no path begins with more than is said."""

    data: tuple[File, ...]  # below its data's folder
    outputs: Mapping[str, tuple[File, ...]]  # by run id, below the run's folder


def data_path(flow_kind: str, path: str = "") -> str:
    """Return the path below an instance's folder of a path below a flow's data."""
    return f"{flow_kind}/data/{path}"


def output_path(flow_kind: str, run_id: str, path: str = "") -> str:
    """Return the path below an instance's folder of a path below a run's folder."""
    return f"{flow_kind}/runs/{run_id}/{path}"


def split(files: Iterable[File]) -> dict[str, Flow]:
    """Return the files of an instance's folder by flow; what has another name is left out."""
    data: dict[str, list[File]] = defaultdict(list)
    outputs: dict[str, dict[str, list[File]]] = defaultdict(lambda: defaultdict(list))
    for file in files:
        flow_kind, _, rest = file.path.partition("/")
        folder, _, below = rest.partition("/")
        if not _FLOW.fullmatch(flow_kind) or not below:
            continue
        if folder == "data":
            data[flow_kind].append(File(below, file.size, file.changed))
        elif folder == "runs":
            run_id, _, name = below.partition("/")
            if name:
                outputs[flow_kind][run_id].append(File(name, file.size, file.changed))
    return {
        flow_kind: Flow(
            tuple(data[flow_kind]),
            {run_id: tuple(found) for run_id, found in outputs[flow_kind].items()},
        )
        for flow_kind in sorted(data.keys() | outputs.keys())
    }


def list_runs(paths: Iterable[str]) -> set[str]:
    """Return the runs that paths below an instance's folder name."""
    return {found[1] for path in paths if (found := _RUN.fullmatch(path))}


def is_draft(path: str) -> bool:
    """Return whether a path below a flow's data is that of a file which is to be renamed."""
    return any(pattern.fullmatch(path) for pattern in _DRAFTS)


def may_be_left(path: str) -> bool:
    """Return whether a path below a flow's data is one of which a leftover may have."""
    return bool(is_draft(path) or PART.fullmatch(path) or VERSION_FILE.fullmatch(path))
