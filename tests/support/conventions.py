"""Conventions that no other tool of `make check` refuses: `python -m support.conventions` lists what breaks them.

It reads the files of the working tree that git knows. Each function yields (line, message) for one file.
"""

from __future__ import annotations

import ast
import io
import re
import subprocess
import sys
import tokenize
import tomllib
from collections.abc import Callable, Iterator
from pathlib import Path, PurePosixPath
from typing import TypeAlias

from packaging.requirements import Requirement

ROOT = Path(__file__).parents[2]
Problem: TypeAlias = tuple[int, str]
_LONGEST_FILE = 400  # lines
_SUPPRESSION = re.compile(r"(ruff: *)?noqa\b|type: *ignore\b|mypy: *ignore\b", re.IGNORECASE)
_WELL_SUPPRESSED = re.compile(
    r"(ruff: *)?noqa: ?[A-Z]+[0-9]+(, ?[A-Z]+[0-9]+)* - \S.*|type: ?ignore\[[a-z-]+(, ?[a-z-]+)*\] *# ?\S.*"
)
_IGNORED_RULE = re.compile(r'\s*"[A-Z]+[0-9]+",\s*(#.*\S)?$')
_SQL_CALLS = {"execute", "exec_driver_sql", "executemany"}
_QUESTION = ("How", "There", "What", "When", "Where", "Whether", "Which", "Who", "Whose", "Why")
_NOT_A_VERB = (
    *_QUESTION,
    "A",
    "An",
    "As",
    "At",
    "By",
    "Every",
    "From",
    "No",
    "Nothing",
    "Of",
    "One",
    "Some",
    "The",
    "With",
)
_THIRD_PERSON = re.compile(
    r"[A-Z][a-z]+[a-rtv-z]s (?!(and|as|at|between|by|for|from|in|of|on|or|over|to|under|with)\b)"
)
_VERBS_IN_S = ("Process", "Pass", "Press", "Address", "Discuss")
_SERVICES = ("instance_service", "lineage_service", "run_service", "status_service")


def find_length(_: PurePosixPath, text: str) -> Iterator[Problem]:
    """Refuse a file that has more than 400 lines."""
    count = text.count("\n")
    if count > _LONGEST_FILE:
        yield _LONGEST_FILE + 1, f"has {count} lines; split it by noun, {_LONGEST_FILE} are allowed"


def find_bare_suppressions(_: PurePosixPath, text: str) -> Iterator[Problem]:
    """Refuse a suppression without its rule or without a reason on the line."""
    for token in tokenize.generate_tokens(io.StringIO(text).readline):
        if token.type != tokenize.COMMENT:
            continue
        words = token.string.lstrip("# ")
        if _SUPPRESSION.match(words) and not _WELL_SUPPRESSED.fullmatch(words):
            yield token.start[0], f"{token.string!r} does not name its rule and its reason"


def find_sql(path: PurePosixPath, text: str) -> Iterator[Problem]:
    """Refuse SQL that a service executes outside of its store."""
    parts = path.parts
    if (
        parts[0] != "services"
        or parts[1] not in _SERVICES
        or {"store", "store.py", "migrations"} & set(parts)
    ):
        return
    for name, call in _calls(text):
        if name.rpartition(".")[2] in _SQL_CALLS:
            yield call.lineno, f"{name} outside of store: queries belong there"


def find_inline_sql(path: PurePosixPath, text: str) -> Iterator[Problem]:
    """Refuse the text of a statement inside a function of a store: it is a constant at the head of the module."""
    if path.parts[0] != "services" or not {"store", "store.py"} & set(path.parts):
        return
    for function in ast.walk(ast.parse(text)):
        if isinstance(function, ast.AsyncFunctionDef):
            for name, call in _calls_in(function):
                if name.endswith("text") and name.partition(".")[0] in {"sa", "text", "sqlalchemy"}:
                    yield (
                        call.lineno,
                        f"{name} inside of {function.name}: name the statement at the head of the module",
                    )


def find_sleeps(path: PurePosixPath, text: str) -> Iterator[Problem]:
    """Refuse a test that sleeps and does not say on the line what takes this time."""
    if path.parts[0] != "tests" or not (path.name.startswith("test_") or path.name == "conftest.py"):
        return
    lines = text.splitlines()
    for name, call in _calls(text):
        is_pause = call.args and not (isinstance(call.args[0], ast.Constant) and call.args[0].value == 0)
        if name in {"asyncio.sleep", "time.sleep"} and is_pause and "#" not in lines[call.lineno - 1]:
            yield (
                call.lineno,
                f"{name}: wait with `await eventually(...)`, or say on the line what takes this time",
            )


def find_unclear_docstrings(path: PurePosixPath, text: str) -> Iterator[Problem]:
    """Refuse a first line of a docstring that is a riddle or a remark, as CONTRIBUTING.md says."""
    if path.parts[0] == "tests":
        return
    for node in ast.walk(ast.parse(text)):
        if not isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            continue
        docstring = ast.get_docstring(node)
        if docstring and (mistake := _docstring_mistake(node, docstring)):
            yield node.body[0].lineno, f"the docstring {mistake}: {docstring.splitlines()[0]!r}"


def _docstring_mistake(node: ast.AST, docstring: str) -> str:
    """Return what is wrong with the first line of a docstring; empty if nothing is."""
    first = re.split(r"[^A-Za-z]", docstring, maxsplit=1)[0]
    is_error = isinstance(node, ast.ClassDef) and node.name.endswith("Error")
    if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and not _is_property(node):
        is_verb = first[:1].isupper() and first not in _NOT_A_VERB
        is_verb = is_verb and (not first.endswith("s") or first in _VERBS_IN_S)
        return "" if is_verb else "does not begin with an imperative verb"
    if first in _QUESTION and not is_error:
        return "does not begin with a noun or an imperative verb"
    return "begins with a verb in the third person" if _THIRD_PERSON.match(docstring) else ""


def _is_property(node: ast.FunctionDef | ast.AsyncFunctionDef) -> bool:
    return any("property" in ast.unparse(decorator) for decorator in node.decorator_list)


def find_unexplained_ignores(path: PurePosixPath, text: str) -> Iterator[Problem]:
    """Refuse a rule that pyproject.toml ignores without a reason on the line."""
    if path.name != "pyproject.toml":
        return
    for number, line in enumerate(text.splitlines(), 1):
        found = _IGNORED_RULE.match(line)
        if found and not found.group(1):
            yield number, f"{line.strip()} is ignored without a reason"


def find_unlocked(path: PurePosixPath, text: str, locked: str | None = None) -> Iterator[Problem]:
    """Refuse a dependency whose locked version is missing or is not one that pyproject.toml allows."""
    if path.name != "pyproject.toml":
        return
    lock = locked if locked is not None else (ROOT / "requirements" / "dev.txt").read_text(encoding="utf-8")
    versions = dict(re.findall(r"^([A-Za-z0-9_.-]+)(?:\[[^]]*\])?==([^\s\\;]+)", lock, re.MULTILINE))
    versions = {_normal(name): version for name, version in versions.items()}
    project = tomllib.loads(text)["project"]
    extras = project.get("optional-dependencies", {})
    for wanted in [*project["dependencies"], *(each for extra in extras.values() for each in extra)]:
        requirement = Requirement(wanted)
        version = versions.get(_normal(requirement.name))
        if version is None or not requirement.specifier.contains(version, prereleases=True):
            number = next((at for at, line in enumerate(text.splitlines(), 1) if wanted in line), 1)
            yield number, f"{wanted} is locked as {version}: run `make lock`"


PYTHON: tuple[Callable[[PurePosixPath, str], Iterator[Problem]], ...] = (
    find_length,
    find_bare_suppressions,
    find_sql,
    find_inline_sql,
    find_sleeps,
    find_unclear_docstrings,
)
PROJECT: tuple[Callable[[PurePosixPath, str], Iterator[Problem]], ...] = (
    find_unexplained_ignores,
    find_unlocked,
)


def find_problems(root: Path) -> list[str]:
    """Return all that breaks a convention, as `file:line: message`."""
    found = []
    command = ("git", "ls-files", "*.py", "pyproject.toml")
    listed = subprocess.run(command, cwd=root, capture_output=True, text=True, check=True)
    for name in listed.stdout.splitlines():
        path = PurePosixPath(name)
        if not (root / name).exists() or path.stem.endswith(("_pb2", "_pb2_grpc")):
            continue
        text = (root / name).read_text(encoding="utf-8")
        for find in PYTHON if path.suffix == ".py" else PROJECT:
            found += [f"{name}:{line}: {message}" for line, message in find(path, text)]
    return found


def _calls(text: str) -> Iterator[tuple[str, ast.Call]]:
    return _calls_in(ast.parse(text))


def _calls_in(tree: ast.AST) -> Iterator[tuple[str, ast.Call]]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Call):
            yield ast.unparse(node.func), node


def _normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


if __name__ == "__main__":
    problems = find_problems(ROOT)
    sys.stdout.write("".join(f"{problem}\n" for problem in problems) or "conventions are kept\n")
    sys.exit(1 if problems else 0)
