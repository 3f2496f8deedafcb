"""The place of a flow's data and of a run's outputs, relative to the folder of all data."""

from __future__ import annotations

from pathlib import Path
from urllib.parse import unquote, urlsplit

_FORBIDDEN = ("\\", "%", "?", "#", "\0")  # a library could read another path in them
_CHAIN = "::"  # joins protocols in URLs


def normalize_root(root: str) -> str:
    """Return the folder of all data as every program writes it: a URI, or an absolute path, without a slash at its end."""
    return root.rstrip("/") if "://" in root else str(Path(root).expanduser().absolute())


def local_path(uri: str) -> str:
    """Return the path of a `file:` URI; any other URI as it is."""
    parts = urlsplit(uri)
    return unquote(parts.path) if parts.scheme == "file" else uri


def instance_folder(tenant_id: str, instance_id: str) -> str:
    """Return the folder of everything that is an instance's."""
    return f"{tenant_id}/{instance_id}"


def flow_folder(tenant_id: str, instance_id: str, flow_kind: str) -> str:
    """Return the folder of a flow; its kind is lower case, without prefix."""
    return f"{instance_folder(tenant_id, instance_id)}/{flow_kind}"


def data_folder(tenant_id: str, instance_id: str, flow_kind: str) -> str:
    """Return the folder of a flow's dataset, which is the same for all its versions."""
    return f"{flow_folder(tenant_id, instance_id, flow_kind)}/data"


def outputs_folder(tenant_id: str, instance_id: str, flow_kind: str, run_id: str) -> str:
    """Return the folder of one run's outputs."""
    return f"{flow_folder(tenant_id, instance_id, flow_kind)}/runs/{run_id}"


def is_inside(uri: str, folder: str, root: str = "") -> bool:
    """Return whether a URI names a folder below `root`, or something in it.

    Without a root any folder may be the root. A URI that a library could read in two ways is never inside.
    """
    if _CHAIN in uri or any(mark in uri for mark in _FORBIDDEN):
        return False
    start, found, rest = uri.rpartition(f"/{folder}")
    if not found or (root and start != root) or (rest and not rest.startswith("/")):
        return False
    path = start.rpartition("://")[2]
    parts = [*path.split("/")[1:], *rest.removesuffix("/").split("/")[1:]]
    return not {"", ".", ".."}.intersection(parts)
