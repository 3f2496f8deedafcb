"""Remove the data of a deleted instance: through its stores, then the rest of its folder; calls no service."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from optaic import storage
from optaic.plugins import CannotRemove, PluginError, Store, StoreUnavailable, load
from servicekit.context import is_tenant_id
from servicekit.ids import is_id
from worker.builtin.removal import remove_tree
from worker.builtin.store_errors import typed
from worker.locations import FlowLocation, instance_uri
from worker.recipe import Component

_REFRESH = "refresh"  # the flow whose data stores keep
_FLOW = re.compile(r"[a-z_]+")  # how a folder of a flow is called
_LEVELS = 4  # tenant, instance, flow, and what the flow has: its data and its runs


@dataclass(frozen=True)
class Removal:
    """The data to remove."""

    data_root: str
    tenant_id: str
    instance_id: str
    stores: tuple[Component, ...]  # every store that the instance ever had
    has_output: bool  # whether it ever had one
    log_level: str = "INFO"
    storage: storage.Access = field(default_factory=storage.Access)  # to the tenant's own data


@typed
def check_place(removal: Removal) -> None:
    """Check, before user code is asked, that only the instance's own data would go; for the worker's own process.

    Raises:
        CannotRemove: something else than the instance has a part in it.
        StoreUnavailable: the place cannot be reached, or is another one than runs had.
    """
    if not (is_tenant_id(removal.tenant_id) and is_id(removal.instance_id)):
        raise CannotRemove(
            f"{removal.tenant_id!r} and {removal.instance_id!r} do not name the folder of an instance"
        )
    if not storage.is_remote(removal.data_root):
        _check_links(Path(storage.local_place(removal.data_root)), removal)


@typed
def remove_by_stores(removal: Removal) -> None:
    """Have the stores remove what they keep; where that was done before, nothing is left to do.

    Raises:
        CannotRemove: a store does not know how.
        StoreUnavailable: the place cannot be reached.
        PluginError: a store cannot be loaded.
    """
    folder = instance_uri(removal.data_root, removal.tenant_id, removal.instance_id)
    for name in _list_flows(folder):
        remove_tree(f"{folder}/{name}/runs")
    location = FlowLocation(removal.data_root, removal.tenant_id, removal.instance_id, _REFRESH)
    if problems := [
        text for store in removal.stores if (text := _remove_by(store, removal, location.data_uri))
    ]:
        raise CannotRemove("; ".join(problems))


@typed
def remove_rest(removal: Removal) -> None:
    """Remove the folder of the instance, after its stores; for the worker's own process.

    Raises:
        StoreUnavailable: the place cannot be reached, or is another one than runs had.
    """
    if not storage.is_remote(removal.data_root):
        _check_tenant(Path(storage.local_place(removal.data_root)), removal)
    remove_tree(instance_uri(removal.data_root, removal.tenant_id, removal.instance_id))


def _remove_by(component: Component, removal: Removal, uri: str) -> str:
    """Have a store remove the data that it keeps; return why it did not."""
    try:
        load(component.code_ref, Store)(component.config).remove(uri)
    except CannotRemove as error:
        if not removal.has_output and not storage.exists(uri):
            return ""  # it never kept anything
        return str(error)
    except PluginError as error:
        return f"{component.definition_name} {component.definition_version}: {error.type}: {error}"
    return ""


def _list_flows(uri: str) -> list[str]:
    """Return the folders of flows: of another name a URI might mean another folder than the one that has it."""
    return [name for name in storage.list_folders(uri) if _FLOW.fullmatch(name)]


def _check_tenant(root: Path, removal: Removal) -> None:
    """Refuse to report success for a tenant without any data here: its data is elsewhere and would be forgotten.

    Raises:
        StoreUnavailable: the data lies below another root.
    """
    if removal.has_output and not (root / removal.tenant_id).is_dir():
        raise StoreUnavailable(
            f"the data root {root} has no folder {removal.tenant_id}, which had the instance's data. Mount the disk, or "
            "give the worker the data root of its runs; if the data no longer exists, create the folder empty"
        )


def _check_links(root: Path, removal: Removal) -> None:
    """Refuse what lies elsewhere than where it should, and what something else leads to as well.

    Raises:
        CannotRemove: there is a link; it is named, unless it is another tenant's.
        StoreUnavailable: the data root is not there.
    """
    if not root.is_dir():
        raise StoreUnavailable(
            f"the data root {root} does not exist; mount the disk, or correct OPTAIC_DATA_ROOT"
        )
    place, true_root = root / removal.tenant_id / removal.instance_id, _follow(root)
    if not os.path.lexists(place):
        return  # then no link can lead there, and the search can be skipped
    true_tenant = true_root / removal.tenant_id
    true_place = true_tenant / removal.instance_id
    if place.exists() and _follow(place) != true_place:
        raise CannotRemove(
            f"{place} leads to {_follow(place)}; OptAIC does not remove the target of a link, remove it by hand"
        )
    for link in _find_links(true_root, true_tenant, _LEVELS):
        target = _follow(link)
        if link.is_relative_to(true_place):
            raise CannotRemove(
                f"{link} leads to {target}; OptAIC does not remove the target of a link, remove it by hand"
            )
        if target.is_relative_to(true_place):
            named = link if link.is_relative_to(true_tenant) else "a link outside of the tenant's folder"
            raise CannotRemove(
                f"{named} leads to {target}, so this folder may belong to other instances; remove the link first"
            )


def _follow(path: Path) -> Path:
    """Return where a path leads; a link that leads to itself is no error, as it is to `Path.resolve`."""
    return Path(os.path.realpath(path))


def _find_links(folder: Path, tenant: Path, levels: int) -> Iterator[Path]:
    """Yield the links in a folder and in the folders below it, down to a number of levels; none is followed.

    Folders beside those of tenants are skipped: a disk's `lost+found`, for example, is not readable. So are the folders
    of other tenants that this worker's user may not read.
    """
    try:
        with os.scandir(folder) as entries:
            found = [
                (Path(each.path), each.is_symlink(), each.is_dir(follow_symlinks=False)) for each in entries
            ]
    except FileNotFoundError:  # another process has just removed it
        return
    except PermissionError:
        if levels == _LEVELS or folder.is_relative_to(tenant):
            raise
        return
    for path, is_link, is_folder in found:
        if is_link:
            yield path
        elif is_folder and levels > 1 and (levels < _LEVELS or is_tenant_id(path.name)):
            yield from _find_links(path, tenant, levels - 1)
