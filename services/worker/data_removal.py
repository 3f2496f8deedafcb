"""Removes the data of an instance that is gone: by its stores, then the rest of its folder; it calls no service."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from pyarrow import fs  # type: ignore[import-untyped] # it ships no type information

from optaic.plugins import CannotRemove, PluginError, Store, StoreUnavailable, load
from servicekit.context import is_tenant_id
from servicekit.ids import is_id
from worker.builtin.removal import remove_tree
from worker.builtin.store_errors import typed
from worker.locations import FlowLocation, instance_uri
from worker.recipe import Component

_REFRESH = "refresh"  # the flow whose data stores keep
_LEVELS = 4  # tenant, instance, flow, and what the flow has: its data and its runs


@dataclass(frozen=True)
class Removal:
    """What is to be removed."""

    data_root: str
    tenant_id: str
    instance_id: str
    stores: tuple[Component, ...]  # every store that the instance ever had
    has_output: bool  # whether it ever had one
    log_level: str = "INFO"


@typed
def remove_data(removal: Removal) -> None:
    """Remove it; where that was done before, nothing is left to do.

    Raises:
        CannotRemove: a store does not know how, or something else than the instance has a part in it.
        StoreUnavailable: the place cannot be reached.
        PluginError: a store cannot be loaded.
    """
    if not (is_tenant_id(removal.tenant_id) and is_id(removal.instance_id)):
        raise CannotRemove(f"{removal.tenant_id!r} and {removal.instance_id!r} name no instance's folder")
    folder = instance_uri(removal.data_root, removal.tenant_id, removal.instance_id)
    files, root = fs.FileSystem.from_uri(removal.data_root)
    if isinstance(files, fs.LocalFileSystem):
        _check_links(Path(root), Path(root) / removal.tenant_id / removal.instance_id)
    for name in _list_folders(folder):
        remove_tree(f"{folder}/{name}/runs")
    location = FlowLocation(removal.data_root, removal.tenant_id, removal.instance_id, _REFRESH)
    if problems := [
        text for store in removal.stores if (text := _remove_by(store, removal, location.data_uri))
    ]:
        raise CannotRemove("; ".join(problems))
    remove_tree(folder)


def _remove_by(component: Component, removal: Removal, uri: str) -> str:
    """Have a store remove what it keeps; return why it did not."""
    try:
        load(component.code_ref, Store)(component.config).remove(uri)
    except CannotRemove as error:
        if not removal.has_output and not _exists(uri):
            return ""  # it never kept anything
        return str(error)
    except PluginError as error:
        return f"{component.definition_name} {component.definition_version}: {error.type}: {error}"
    return ""


def _exists(uri: str) -> bool:
    files, place = fs.FileSystem.from_uri(uri)
    return bool(files.get_file_info(place).type != fs.FileType.NotFound)


def _list_folders(uri: str) -> list[str]:
    files, place = fs.FileSystem.from_uri(uri)
    if files.get_file_info(place).type != fs.FileType.Directory:
        return []
    found = files.get_file_info(fs.FileSelector(place))
    return [each.base_name for each in found if each.type == fs.FileType.Directory]


def _check_links(root: Path, place: Path) -> None:
    """Refuse what lies elsewhere than where it should, and what something else leads to as well.

    Raises:
        CannotRemove: there is a link; it is named.
        StoreUnavailable: the data root is not there.
    """
    if not root.is_dir():
        raise StoreUnavailable(f"the data root {root} is not there")
    true_place = root.resolve() / place.relative_to(root)
    if place.exists() and place.resolve() != true_place:
        raise CannotRemove(f"{place} leads to {place.resolve()}: what is there is not removed; do so by hand")
    for link in _find_links(root.resolve(), _LEVELS):
        if link.is_relative_to(true_place):
            raise CannotRemove(
                f"{link} leads to {link.resolve()}: what is there is not removed; do so by hand"
            )
        if link.resolve().is_relative_to(true_place):
            raise CannotRemove(
                f"{link} leads to {link.resolve()}, which therefore is not this instance's alone"
            )


def _find_links(folder: Path, levels: int) -> Iterator[Path]:
    """The links in a folder and in the folders below it, so many levels deep; none is followed."""
    try:
        with os.scandir(folder) as entries:
            found = [
                (Path(each.path), each.is_symlink(), each.is_dir(follow_symlinks=False)) for each in entries
            ]
    except FileNotFoundError:  # somebody has just removed it
        return
    for path, is_link, is_folder in found:
        if is_link:
            yield path
        elif is_folder and levels > 1:
            yield from _find_links(path, levels - 1)
