"""Find the installed package of a file, and the git commit of its sources; only reads files."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

_COMMIT = re.compile(r"[0-9a-f]{40}([0-9a-f]{24})?")
_INSTALLED = frozenset({"site-packages", "dist-packages"})  # folders of packages that others wrote


@dataclass(frozen=True)
class Distribution:
    """An installed package, with those of its modules that can be imported."""

    name: str
    version: str
    folders: tuple[Path, ...]  # all modules below them are its own
    files: frozenset[Path]  # modules that lie beside those of others
    is_editable: bool = False  # its sources are a working tree
    commit: str = ""  # that it was installed from, where it says so

    def owns(self, path: Path) -> bool:
        """Return whether a module's file is one of its."""
        return path in self.files or any(is_below(path, folder) for folder in self.folders)


def find_distribution(path: Path, root: Path) -> Distribution | None:
    """Return the package that the module in `path` belongs to; `root` is the folder that Python found it in."""
    return _find_installed(path, root) or _find_editable(path, root) or _find_unrecorded(path, root)


def _find_installed(path: Path, root: Path) -> Distribution | None:
    """Find the installed package of a file in the records of installations: by the file, or by the nearest folder."""
    relative = path.relative_to(root).as_posix()
    top = relative.split("/")[0].removesuffix(path.suffix)
    best: tuple[int, metadata.Distribution, str] | None = None
    for found in _in_order(top, root):
        record = found.read_text("RECORD")
        depth = _depth(relative, record) if record else 0
        if record and depth > (best[0] if best else 0):
            best = (depth, found, record)
            if depth > relative.count("/"):
                break
    if best is None:
        return None
    _, found, record = best
    modules = [root / line.split(",")[0].strip('"') for line in record.splitlines()]
    modules = [
        each for each in modules if each.suffix in {".py", ".so", ".pyd", ".pyc"} and ".." not in each.parts
    ]
    folders = {each.parent for each in modules} - {root}
    return Distribution(
        *_name(found),
        tuple(sorted(folder for folder in folders if not folders.intersection(folder.parents))),
        frozenset(each for each in modules if each.parent == root),
        commit=_read_installed_commit(found),
    )


def _in_order(top: str, root: Path) -> Iterator[metadata.Distribution]:
    """Yield the packages that are installed in a folder, those with the name of the module first."""
    wanted = _normalize(top)
    folders = sorted(root.glob("*.dist-info"))
    for folder in sorted(folders, key=lambda each: _normalize(each.name.partition("-")[0]) != wanted):
        yield metadata.Distribution.at(folder)


def _depth(relative: str, record: str) -> int:
    """Return how exactly a record knows a file: one more than its folders when itself, else its deepest known folder."""
    record = f"\n{record}"
    if f"\n{relative}," in record:
        return relative.count("/") + 1
    parts = relative.split("/")[:-1]
    return next((count for count in range(len(parts), 0, -1) if f"\n{'/'.join(parts[:count])}/" in record), 0)


def _find_editable(path: Path, root: Path) -> Distribution | None:
    for found in metadata.distributions():
        origin = _read_origin(found)
        if not origin.get("dir_info", {}).get("editable"):
            continue
        project = Path(unquote(urlsplit(origin.get("url", "")).path))
        if not is_below(path, project):
            continue
        roots, has_finder = _read_paths(found)
        if root in roots or has_finder:
            folders = tuple(sorted(roots)) if root in roots else (project,)
            return Distribution(*_name(found), folders, frozenset(), is_editable=True)
    return None


def _read_paths(found: metadata.Distribution) -> tuple[set[Path], bool]:
    """Return the folders that an editable package adds to Python's path, and whether it has a finder of its own instead."""
    roots, has_finder = set[Path](), False
    for each in found.files or ():
        if each.suffix == ".pth":
            try:
                lines = Path(str(each.locate())).read_text(encoding="utf-8").splitlines()
            except (OSError, UnicodeDecodeError):  # Python ignores it as well
                continue
            has_finder = has_finder or any(line.startswith("import") for line in lines)
            roots.update(Path(line) for line in lines if line and not line.startswith(("import", "#")))
    return roots, has_finder


def _find_unrecorded(path: Path, root: Path) -> Distribution | None:
    """Return what an older installer left, without a record: by the names of its top-level modules."""
    top = path.relative_to(root).parts[0]
    name = top.removesuffix(path.suffix)
    for found in metadata.distributions(path=[str(root)]):
        if found.read_text("RECORD") is not None:
            continue
        names = (found.read_text("top_level.txt") or "").split() or [found.metadata["Name"] or ""]
        if name in names:
            owned = [root / each for each in names if (root / each).is_dir()]
            files = frozenset(root / f"{each}.py" for each in names)
            is_editable = root.name not in _INSTALLED
            return Distribution(*_name(found), tuple(owned), files, is_editable)
    return None


def _name(found: metadata.Distribution) -> tuple[str, str]:
    """Return the package's name and version; empty if its metadata is damaged."""
    return found.metadata["Name"] or "", found.metadata["Version"] or ""


def _read_installed_commit(found: metadata.Distribution) -> str:
    source = _read_origin(found).get("vcs_info", {})
    commit = str(source.get("commit_id", ""))
    return commit if source.get("vcs") == "git" and _COMMIT.fullmatch(commit) else ""


def _read_origin(found: metadata.Distribution) -> dict[str, Any]:
    """Return where it was installed from."""
    try:
        origin = json.loads(found.read_text("direct_url.json") or "{}")
    except ValueError:
        return {}
    return origin if isinstance(origin, dict) else {}


def is_shared(root: Path) -> bool:
    """Return whether a folder is one that packages are installed into."""
    return root.name in _INSTALLED or any(root.glob("*.dist-info"))


def is_below(path: Path, folder: Path) -> bool:
    """Return whether a file lies below a folder, and not in an environment within."""
    return path.is_relative_to(folder) and not _INSTALLED.intersection(path.relative_to(folder).parts)


def _normalize(name: str) -> str:
    return re.sub(r"[-_.]+", "_", name).lower()


def read_commit(folder: Path) -> str:
    """Return the git commit that is checked out in the working tree around a folder; empty where there is none."""
    try:
        for parent in (folder, *folder.parents):
            dot = parent / ".git"
            if dot.is_dir():
                return _read_head(dot)
            if dot.is_file():  # a worktree, or a submodule
                return _read_head(parent / dot.read_text(encoding="utf-8").removeprefix("gitdir:").strip())
    except (OSError, UnicodeDecodeError):
        pass
    return ""


def _read_head(git: Path) -> str:
    head = (git / "HEAD").read_text(encoding="utf-8").strip()
    if head.startswith("ref:"):
        reference, shared = head.removeprefix("ref:").strip(), git
        if (git / "commondir").is_file():
            shared = git / (git / "commondir").read_text(encoding="utf-8").strip()
        head = _read_reference(shared, reference)
    return head if _COMMIT.fullmatch(head) else ""


def _read_reference(git: Path, reference: str) -> str:
    if (git / reference).is_file():
        return (git / reference).read_text(encoding="utf-8").strip()
    if (git / "packed-refs").is_file():
        for line in (git / "packed-refs").read_text(encoding="utf-8").splitlines():
            commit, _, name = line.partition(" ")
            if name == reference:
                return commit
    return ""
