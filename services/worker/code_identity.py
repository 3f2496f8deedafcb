"""Identify the code of a plugin: its package, its release, the hash of its sources; imports no plugin."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

import optaic
from worker.distributions import find_distribution, is_below, is_shared, read_commit
from worker.module_graph import ModuleGraph

_OWN = "optaic"  # the package that this module belongs to
_WORKER, _PUBLIC = (Path(each).parent.resolve() for each in (__file__, optaic.__file__))
_COMPUTING = (
    _WORKER,
    *(_PUBLIC / each for each in ("expression", "plugins", "rules")),
)  # what of it a plugin may execute


def _read_release() -> str:
    try:
        return metadata.version(_OWN)
    except metadata.PackageNotFoundError:
        return ""


_RELEASE = _read_release()  # when this module was loaded, as what is built in was


@dataclass(frozen=True)
class CodeIdentity:
    """The code that a `code_ref` names, as it is installed now; empty fields are unknown."""

    hash: str = ""  # of its module and the modules of the same package that it imports
    distribution: str = ""
    version: str = ""
    git_revision: str = ""
    is_editable: bool = False
    is_builtin: bool = False


def identify(code_ref: str) -> CodeIdentity:
    """Identify the code that an import would load now; the hash is empty if there is none."""
    name = code_ref.partition(":")[0]
    graph = ModuleGraph()
    place = graph.find(name)
    path = place.path if place is not None else None
    if path is None:
        return CodeIdentity()
    if _is_below(path, (_WORKER, _PUBLIC)):
        return _identify_builtin(name)
    root = _find_root(path, name, is_package=bool(place and place.folders))
    found = find_distribution(path, root)
    is_source = found is None or found.is_editable
    return CodeIdentity(
        hash=graph.hash(name, found.owns if found else _owner(path, root)),
        distribution=found.name if found else "",
        version=found.version if found else "",
        git_revision=read_commit(path.parent) if is_source else (found.commit if found else ""),
        is_editable=found is not None and found.is_editable,
    )


@functools.cache
def _identify_builtin(name: str) -> CodeIdentity:
    """Identify the built-in package once for a process and its forks, because the built-in plugins are loaded once."""
    digest = ModuleGraph().hash(name, lambda path: _is_below(path, _COMPUTING))
    return CodeIdentity(
        digest,
        _OWN,
        _RELEASE,
        git_revision="" if "site-packages" in _WORKER.parts else read_commit(_WORKER),
        is_builtin=True,
    )


def _is_below(path: Path, folders: Iterable[Path]) -> bool:
    """Return whether a file lies below one of some folders; an installer may have put a link there."""
    return any(map((path.parent.resolve() / path.name).is_relative_to, folders))


def _find_root(path: Path, name: str, *, is_package: bool) -> Path:
    """Return the folder in which Python found the outermost package of a module."""
    return path.parents[name.count(".") + is_package]


def _owner(path: Path, root: Path) -> Callable[[Path], bool]:
    """Return whether a file goes with one that belongs to no package: all that lies in the same folder of the path does.

    Where packages are installed into that folder, only what has the same outermost module.
    """
    top = root / path.relative_to(root).parts[0]
    return lambda each: is_below(each, top if is_shared(root) else root)
