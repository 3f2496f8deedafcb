"""The place of a flow's data and of a run's outputs, relative to the folder of all data."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
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


def find_root_problem(root: str) -> str:
    """Return why a text is no root of data as runs record it; empty if it is one."""
    if not (root.startswith("/") or re.match(r"[a-z][a-z0-9+.-]*://.", root)):
        return "is no absolute path and no URI; write it as OPTAIC_DATA_ROOT of the workers"
    path = root.partition("://")[2] or root
    parts = path.removeprefix("/").split("/")
    if _CHAIN in root or any(mark in root for mark in _FORBIDDEN) or {"", ".", ".."}.intersection(parts):
        return f"may have no slash at its end, no empty part, no '.' and '..', and none of {' '.join(_FORBIDDEN[:-1])}"
    return ""


def spellings(root: str) -> frozenset[str]:
    """Return all texts that name the same root: a folder of this machine has a path and a URI."""
    path = local_path(root)
    return frozenset({root} if "://" in path else {root, path, f"file://{path}"})


def are_nested(roots: Iterable[str]) -> bool:
    """Return whether one of some roots lies within another one."""
    folders = sorted({f"{local_path(root)}/" for root in roots})
    return any(inner.startswith(outer) for outer in folders for inner in folders if inner != outer)


def relocate(uri: str, tenant_id: str, roots: Mapping[str, str]) -> str:
    """Return where data of a tenant is read that is recorded at a URI.

    Args:
        uri: as it is recorded.
        tenant_id: the tenant.
        roots: from where data was moved, and where it is now; none lies within another one.
    """
    for former, root in roots.items():
        if uri.startswith(f"{former}/{tenant_id}/"):
            return root + uri[len(former) :]
    return uri
