"""Find the modules that a module imports, and hash their sources; files are read, nothing is imported."""

from __future__ import annotations

import ast
import contextlib
import functools
import hashlib
import sys
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from importlib.machinery import BYTECODE_SUFFIXES, SOURCE_SUFFIXES, all_suffixes
from importlib.util import resolve_name
from pathlib import Path

_BOM = b"\xef\xbb\xbf"
_PYC_HEADER = 16  # bytes: when and of what it was compiled
_LOADERS = frozenset({"import_module", "__import__"})
_COMPUTED = "**"  # stands for all modules of a package
_MOST_FILES = 8_192  # that are remembered
_ATTEMPTS = 10
_parsing = threading.Lock()


@dataclass(frozen=True)
class Module:
    """One file, as far as it matters here."""

    digest: str
    imports: tuple[str, ...]  # names, some of which may be no modules but what a module holds
    exports: tuple[str, ...]  # what its `__all__` lists


@dataclass(frozen=True)
class Place:
    """The place of a module: its file, and the folders that contain its submodules."""

    path: Path | None  # None: a namespace package, or nothing that is kept in a file
    folders: tuple[str, ...] = ()


@dataclass
class ModuleGraph:
    """The places of modules, found as Python would find them, but without importing their packages."""

    _places: dict[str, Place | None] = field(default_factory=dict)

    def find(self, name: str) -> Place | None:
        """Return where a module is; None where there is none."""
        if name not in self._places:
            self._places[name] = self._find(name)
        return self._places[name]

    def _find(self, name: str) -> Place | None:
        parent, _, last = name.rpartition(".")
        folders: list[str] | None = None
        if parent:
            package = self.find(parent)
            if package is None or not package.folders:
                return None
            folders = list(package.folders)
        for finder in sys.meta_path:
            find_spec = getattr(finder, "find_spec", None)
            try:
                spec = find_spec(name, folders) if find_spec is not None else None
            except KeyError:  # a namespace package within one that was not imported
                return _namespace(last, folders)
            if spec is not None and spec.has_location and spec.origin is not None:
                return Place(Path(spec.origin), tuple(spec.submodule_search_locations or ()))
            if spec is not None:
                is_namespace = spec.submodule_search_locations is not None
                return _namespace(last, folders) if is_namespace else Place(None)
        return None

    def hash(self, name: str, is_own: Callable[[Path], bool]) -> str:
        """Return a hash of a module and of everything it imports (within functions too) whose file satisfies `is_own`.

        It depends on names and sources only: neither where they lie, nor on times, nor on how lines end.
        """
        digests: dict[str, str] = {}
        pending, seen = [name], set[str]()
        while pending:
            wanted = pending.pop()
            if wanted in seen:
                continue
            seen.add(wanted)
            parts = wanted.split(".")
            # Importing a module executes its packages first.
            for each in (".".join(parts[: count + 1]) for count in range(len(parts))):
                module = None if each in digests else self._read(each, is_own)
                if module is not None:
                    digests[each] = module.digest
                    pending.extend(self._resolve(module.imports, is_own))
        lines = "".join(f"{each}\n{digest}\n" for each, digest in sorted(digests.items()))
        return hashlib.sha256(lines.encode()).hexdigest() if digests else ""

    def _read(self, name: str, is_own: Callable[[Path], bool]) -> Module | None:
        place = self.find(name)
        if place is None or place.path is None or not is_own(place.path):
            return None
        try:
            state = place.path.stat()
            known = (state.st_ino, state.st_size, state.st_mtime_ns, state.st_ctime_ns)
            return _read_file(place.path, name, bool(place.folders), known)
        except OSError:
            return None

    def _resolve(self, imports: tuple[str, ...], is_own: Callable[[Path], bool]) -> Iterator[str]:
        """Yield what is imported by `*` from a package may be its submodules, and by a computed name any of them."""
        for name in imports:
            package, _, last = name.rpartition(".")
            if last == _COMPUTED:
                yield from self._list_below(package, is_own)
            elif last != "*":
                yield name
            elif (module := self._read(package, is_own)) is not None:
                yield from (f"{package}.{exported}" for exported in module.exports)

    def _list_below(self, package: str, is_own: Callable[[Path], bool]) -> Iterator[str]:
        place = self.find(package)
        for folder in place.folders if place is not None else ():
            for path in Path(folder).rglob("*"):
                if path.name.endswith(tuple(all_suffixes())) and is_own(path):
                    last = path.name.partition(".")[0]
                    parts = (*path.parent.relative_to(folder).parts, *([last] if last != "__init__" else []))
                    if all(part.isidentifier() and part != "__pycache__" for part in parts):
                        yield ".".join((package, *parts))


def _namespace(last: str, folders: list[str] | None) -> Place:
    """Return a package of folders only; its own list of them would want its parent to be imported."""
    around = sys.path if folders is None else folders
    return Place(None, tuple(path for each in around if Path(path := f"{each}/{last}").is_dir()))


@functools.lru_cache(maxsize=_MOST_FILES)
def _read_file(path: Path, name: str, is_package: bool, known: tuple[int, ...]) -> Module:
    """Return what a file holds; `known` changes with the file."""
    del known
    content = path.read_bytes()
    if path.suffix in BYTECODE_SUFFIXES:
        content = content[_PYC_HEADER:]
    if path.suffix not in SOURCE_SUFFIXES:
        return Module(hashlib.sha256(content).hexdigest(), (), ())
    content = content.removeprefix(_BOM).replace(b"\r\n", b"\n").replace(b"\r", b"\n")
    digest = hashlib.sha256(content).hexdigest()
    try:
        tree = _parse(content)
        package = name if is_package else name.rpartition(".")[0]
        return Module(digest, tuple(dict.fromkeys(_list_imports(tree, package))), tuple(_list_exports(tree)))
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return Module(digest, (), ())  # the import reports the error


def _parse(content: bytes) -> ast.Module:
    """Parse a source, one at a time: Python 3.11 counts the depth of all trees together that threads make at once."""
    with _parsing:
        for _ in range(_ATTEMPTS):
            with contextlib.suppress(SystemError):  # another thread, not ours, has made a tree meanwhile
                return ast.parse(content)
        return ast.parse(content)


def _list_imports(tree: ast.AST, package: str) -> Iterator[str]:
    pending = [tree]
    while pending:
        node = pending.pop()
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = _absolute("." * node.level + (node.module or ""), package)
            if base:
                yield base
                yield from (f"{base}.{alias.name}" for alias in node.names)
        elif isinstance(node, ast.Call) and (named := _loaded(node)):
            base = package.partition(".")[0] if named == _COMPUTED else _absolute(named, package)
            if base:
                yield f"{base}.{_COMPUTED}" if named == _COMPUTED else base
        elif isinstance(node, ast.If) and _is_for_checkers(node.test):
            pending.extend(node.orelse)
            continue
        pending.extend(ast.iter_child_nodes(node))


def _absolute(name: str, package: str) -> str:
    try:
        return resolve_name(name, package).removesuffix(".") if name else ""
    except ImportError:  # beyond the outermost package
        return ""


def _loaded(call: ast.Call) -> str:
    """Return the name that `importlib.import_module` and the like are called with, or what stands for one that is computed."""
    function = call.func
    name = function.attr if isinstance(function, ast.Attribute) else getattr(function, "id", "")
    if name not in _LOADERS:
        return ""
    first = call.args[0] if call.args else None
    return first.value if isinstance(first, ast.Constant) and isinstance(first.value, str) else _COMPUTED


def _is_for_checkers(test: ast.expr) -> bool:
    name = test.attr if isinstance(test, ast.Attribute) else getattr(test, "id", "")
    return name == "TYPE_CHECKING"


def _list_exports(tree: ast.Module) -> Iterator[str]:
    for node in tree.body:
        targets = node.targets if isinstance(node, ast.Assign) else [getattr(node, "target", None)]
        if not any(isinstance(target, ast.Name) and target.id == "__all__" for target in targets):
            continue
        value = getattr(node, "value", None)
        if isinstance(value, ast.List | ast.Tuple):
            yield from (
                each.value
                for each in value.elts
                if isinstance(each, ast.Constant) and isinstance(each.value, str)
            )
