"""Write the nouns of the synchronous client, from those of the asynchronous one: `make client`."""

from __future__ import annotations

import ast
import builtins
import subprocess
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path

CLIENT = Path(__file__).parents[2] / "shared" / "optaic" / "client"
TARGET = CLIENT / "synchronous"
# The modules that have nouns, and their classes; a class comes after those that it inherits from or returns.
NOUNS = {
    "access": ("Access",),
    "audit": ("Audit",),
    "data": ("Data",),
    "data_moves": ("DataMoves",),
    "definitions": ("Definitions",),
    "lineage": ("Lineage",),
    "projects": ("Projects",),
    "promotions": ("Promotions",),
    "instances": ("Instances",),
    "refreshes": ("RefreshHandle", "Refreshes"),
    "runs": ("RunHandle", "Runs"),
    "status": ("Statuses",),
}
_OURS = {name: module for module, classes in NOUNS.items() for name in classes}
_STREAMS = ("AsyncGenerator", "AsyncIterator")
_HEAD = '''"""{doc} Generated from optaic.client.{module} by `make client`; do not edit."""

from __future__ import annotations

'''
_Method = ast.FunctionDef | ast.AsyncFunctionDef


def modules() -> Iterator[tuple[str, str]]:
    """Yield each module's name and text."""
    for module, classes in NOUNS.items():
        yield module, _format(_Module(module, classes).text())


class _Module:
    """One module of the asynchronous client, and what is written from it."""

    def __init__(self, module: str, classes: Iterable[str]) -> None:
        self._module = module
        self._source = (CLIENT / f"{module}.py").read_text(encoding="utf-8")
        self._tree = ast.parse(self._source)
        self._classes = [
            each for each in self._tree.body if isinstance(each, ast.ClassDef) and each.name in classes
        ]
        self._used: set[str] = set()

    def text(self) -> str:
        """Return the module of the synchronous client."""
        bodies = "\n\n".join("".join(self._class(each)) for each in self._classes)
        doc = (ast.get_docstring(self._tree) or "").partition("\n")[0]
        return _HEAD.format(doc=doc, module=self._module) + self._imports(bodies) + "\n\n" + bodies

    def _class(self, node: ast.ClassDef) -> Iterator[str]:
        ours = [base.id for base in node.bases if isinstance(base, ast.Name) and base.id in _OURS]
        target = f"asynchronous.{node.name}"
        for base in ours:
            yield f"class {node.name}({base}):\n"
        if not ours:
            yield f"class {node.name}(Plain[{target}]):\n"
        yield f"    {self._docstring(node)}\n"
        if ours:
            yield f"\n    _target: {target}\n"
        for member in node.body:
            if isinstance(member, ast.Assign):
                yield f"\n    {ast.unparse(member)}\n"
            elif isinstance(member, ast.FunctionDef | ast.AsyncFunctionDef):
                yield from self._member(member)

    def _member(self, node: _Method) -> Iterator[str]:
        if node.name == "__init__":
            yield from self._attributes(node)
        elif node.name == "__getattr__":
            yield "\n    def __getattr__(self, name: str) -> Any:\n"
            yield '        if name.startswith("_"):\n            raise AttributeError(name)\n'
            yield "        return getattr(self._target, name)\n"
            self._used.add("Any")
        elif not node.name.startswith("_"):
            yield "\n" + self._method(node)

    def _attributes(self, node: _Method) -> Iterator[str]:
        """Yield a property for each public attribute that is an argument of the constructor."""
        kinds = {each.arg: each.annotation for each in node.args.args}
        for statement in node.body:
            match statement:
                case ast.Assign(targets=[ast.Attribute(attr=name)], value=ast.Name(id=given)) if (
                    not name.startswith("_") and (kind := kinds.get(given)) is not None
                ):
                    self._note(kind)
                    yield f"\n    @property\n    def {name}(self) -> {ast.unparse(kind)}:\n"
                    yield f'        """The {name} as it was last seen."""\n        return self._target.{name}\n'

    def _method(self, node: _Method) -> str:
        decorators = [ast.unparse(each) for each in node.decorator_list]
        for each in node.decorator_list:
            self._note(each)
        self._note(node.args)
        lines = "".join(f"    @{each}\n" for each in decorators)
        lines += f"    def {node.name}({ast.unparse(node.args)}) -> {self._returned(node)}:"
        if "overload" in decorators:
            return f"{lines} ...\n"
        called = f"self._target.{node.name}"
        if "property" not in decorators:
            called += f"({', '.join(_passed(node.args))})"
        if _is_stream(node):
            called = f"self._loop.iterate({called})"
        elif isinstance(node, ast.AsyncFunctionDef):
            called = f"self._loop.run({called})"
        if isinstance(node.returns, ast.Name) and node.returns.id in _OURS:
            called = f"{node.returns.id}(self._loop, {called})"
        return f"{lines}\n        {self._docstring(node)}\n        return {called}\n"

    def _returned(self, node: _Method) -> str:
        assert node.returns is not None, f"{node.name} says not what it returns"
        if _is_stream(node) and isinstance(node.returns, ast.Subscript):
            self._note(node.returns.slice)
            self._used.add("Generator")
            return f"Generator[{ast.unparse(node.returns.slice)}, None, None]"
        self._note(node.returns)
        return ast.unparse(node.returns)

    def _docstring(self, node: ast.ClassDef | _Method) -> str:
        text = ast.get_source_segment(self._source, node.body[0])
        assert text is not None, f"{node.name} has no docstring"
        return text

    def _note(self, node: ast.AST) -> None:
        self._used |= {each.id for each in ast.walk(node) if isinstance(each, ast.Name)}

    def _imports(self, bodies: str) -> str:
        """Return the imports of all names that are used; of each, from where the asynchronous module has it."""
        lines = [f"from optaic.client import {self._module} as asynchronous\n"]
        if "Plain[" in bodies:
            lines.append("from optaic.client.synchronous.loop import Plain\n")
        if "Generator" in self._used:
            lines.append("from collections.abc import Generator\n")
        bases = {base.id for each in self._classes for base in each.bases if isinstance(base, ast.Name)}
        here = {each.name for each in self._classes}
        lines += [
            f"from optaic.client.synchronous.{_OURS[name]} import {name}\n"
            for name in sorted((bases | self._used) & _OURS.keys() - here)
        ]
        for_types: list[str] = []
        found: set[str] = set()
        for node in ast.walk(self._tree):
            if isinstance(node, ast.Import | ast.ImportFrom):
                for alias in node.names:
                    if (name := alias.asname or alias.name) not in self._used - found - _OURS.keys():
                        continue
                    found.add(name)
                    (lines if node in self._tree.body else for_types).append(_import(node, alias))
        own = self._used - found - _OURS.keys() - set(dir(builtins)) - {"Any", "Generator"}
        lines += [f"from optaic.client.{self._module} import {name}\n" for name in sorted(own)]
        if "Any" in self._used - found:
            lines.append("from typing import Any\n")
        if for_types:
            lines.append("from typing import TYPE_CHECKING\n")
            for_types = ["\nif TYPE_CHECKING:\n", *(f"    {each}" for each in for_types)]
        return "".join([*lines, *for_types])


def _import(node: ast.Import | ast.ImportFrom, alias: ast.alias) -> str:
    single = (
        ast.ImportFrom(node.module, [alias], 0) if isinstance(node, ast.ImportFrom) else ast.Import([alias])
    )
    return f"{ast.unparse(single)}\n"


def _is_stream(node: _Method) -> bool:
    return (
        isinstance(node.returns, ast.Subscript)
        and isinstance(node.returns.value, ast.Name)
        and node.returns.value.id in _STREAMS
    )


def _passed(arguments: ast.arguments) -> Iterator[str]:
    """Yield the arguments of a call that passes on what it was given."""
    yield from (each.arg for each in [*arguments.posonlyargs, *arguments.args][1:])
    if arguments.vararg:
        yield f"*{arguments.vararg.arg}"
    yield from (f"{each.arg}={each.arg}" for each in arguments.kwonlyargs)
    if arguments.kwarg:
        yield f"**{arguments.kwarg.arg}"


def _format(text: str) -> str:
    """Return the text as `make check` wants it."""
    ruff = [str(Path(sys.executable).with_name("ruff"))]
    name = ["--stdin-filename", str(TARGET / "generated.py"), "-"]
    for step in (["check", "--quiet", "--select", "I,F401", "--fix"], ["format", "--quiet"]):
        done = subprocess.run([*ruff, *step, *name], input=text, capture_output=True, text=True, check=True)
        text = done.stdout
    return text


if __name__ == "__main__":
    for _module, _text in modules():
        (TARGET / f"{_module}.py").write_text(_text, encoding="utf-8")
