"""`make check` refuses what CONTRIBUTING.md says that it refuses."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import PurePosixPath

import pytest

from support import conventions
from support.conventions import Problem

STORE = "services/run_service/store/runs.py"
USE_CASE = "services/run_service/use_cases/reports.py"
TEST = "tests/unit/test_x.py"
QUIET = "noqa"  # kept apart: what follows is no suppression of this file


def found(find: Callable[[PurePosixPath, str], Iterator[Problem]], path: str, text: str) -> list[int]:
    return sorted(line for line, _ in find(PurePosixPath(path), text))


def test_a_file_has_at_most_400_lines() -> None:
    assert not found(conventions.find_length, STORE, "x = 1\n" * 400)
    assert found(conventions.find_length, STORE, "x = 1\n" * 401) == [401]


@pytest.mark.parametrize(
    ("comment", "is_well_said"),
    [
        (f"{QUIET}", False),
        (f"{QUIET}: S101", False),
        (f"{QUIET}: S101 -", False),
        (f"{QUIET}: S101, D102 - the contract's", True),
        (f"ruff: {QUIET}", False),
        (f"ruff: {QUIET}: N802 - names of RPCs", True),
        ("type: ignore", False),
        ("type: ignore[arg-type]", False),
        ("type: ignore[arg-type, misc]  # known at run time", True),
        ("a comment about types", True),
    ],
)
def test_a_suppression_names_its_rule_and_its_reason(comment: str, is_well_said: bool) -> None:
    text = f"y = 2\nx = 1  # {comment}\n"
    assert found(conventions.find_bare_suppressions, STORE, text) == ([] if is_well_said else [2])


@pytest.mark.parametrize(
    "layer", ["use_cases/x.py", "consumers.py", "resources/x.py", "grpc_api.py", "app.py"]
)
@pytest.mark.parametrize("service", ["instance", "run", "lineage", "status"])
def test_only_a_store_executes_sql(service: str, layer: str) -> None:
    text = "async def f(c):\n    await c.execute(q)\n    await c.exec_driver_sql('select 1')\n"
    assert found(conventions.find_sql, f"services/{service}_service/{layer}", text) == [2, 3]
    for place in ("store/x.py", "store.py", "migrations/202601010000_x.py"):
        assert not found(conventions.find_sql, f"services/{service}_service/{place}", text)


def test_a_statement_stands_at_the_head_of_its_module() -> None:
    head = "_Q = sa.text('select 1')\nasync def f(c):\n    return await c.execute(_Q)\n"
    assert not found(conventions.find_inline_sql, STORE, head)
    inline = "async def f(c):\n    return await c.execute(sa.text('select 1'))\n"
    assert found(conventions.find_inline_sql, STORE, inline) == [2]


def test_a_test_does_not_sleep_to_wait() -> None:
    text = "await asyncio.sleep(0)\nawait asyncio.sleep(1)\ntime.sleep(x)\ntime.sleep(1)  # the outage\n"
    assert found(conventions.find_sleeps, TEST, text) == [2, 3]
    assert not found(conventions.find_sleeps, STORE, text)


@pytest.mark.parametrize(
    ("line", "is_of_function", "is_of_class"),
    [
        ("Return the runs of a flow.", True, True),
        ("Process one batch.", True, True),
        ("The runs of a flow.", False, True),
        ("A run that waits.", False, True),
        ("Settings of a store.", False, True),
        ("What a run reports.", False, False),
        ("Whether a run is active.", False, False),
        ("Keeps the runs of a flow.", False, False),
        ("`date, entity, close`.", False, True),
        ("As configured.", False, True),
        ("runs of a flow.", False, True),
    ],
)
def test_docstring_begins_with_an_imperative_verb_or_a_noun(
    line: str, is_of_function: bool, is_of_class: bool
) -> None:
    function = f'class X:\n    def f(self):\n        """{line}"""\n'
    named = f'class X:\n    @cached_property\n    def f(self):\n        """{line}"""\n'
    assert found(conventions.find_unclear_docstrings, STORE, function) == ([] if is_of_function else [3])
    assert found(conventions.find_unclear_docstrings, STORE, named) == ([] if is_of_class else [4])
    assert found(conventions.find_unclear_docstrings, STORE, f'"""{line}"""\n') == (
        [] if is_of_class else [1]
    )
    assert not found(conventions.find_unclear_docstrings, TEST, function)


def test_docstring_of_an_exception_may_be_a_statement() -> None:
    text = 'class NoRunError(Exception):\n    """There is no run."""\n'
    assert not found(conventions.find_unclear_docstrings, STORE, text)
    assert found(conventions.find_unclear_docstrings, STORE, text.replace("NoRunError", "NoRun")) == [2]


def test_an_ignored_rule_has_a_reason() -> None:
    text = 'ignore = [\n    "D105",\n    "D107", # described by the class\n]\n'
    assert found(conventions.find_unexplained_ignores, "pyproject.toml", text) == [2]


@pytest.mark.parametrize(
    ("lock", "is_kept"), [("a==1.2\nb[x]==3\n", True), ("a==2.0\nb==3\n", False), ("a==1.2\n", False)]
)
def test_every_declared_dependency_is_locked(lock: str, is_kept: bool) -> None:
    text = '[project]\ndependencies = [\n    "a>=1,<2",\n]\n[project.optional-dependencies]\nx = ["B[x]"]\n'
    assert (not [*conventions.find_unlocked(PurePosixPath("pyproject.toml"), text, lock)]) is is_kept


def test_the_project_keeps_its_conventions() -> None:
    assert conventions.find_problems(conventions.ROOT) == []
