"""Planted defects: each is noticed by the test that is named beside it, so that the tests that pass prove something."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

from support import campaigns
from support.defects import DEFECTS, ROOT, Defect, run_with

# What `make test` runs: the tests of these need no server.
_QUICK = {
    "an accepted version is ignored",
    "a run of a range clears a cause",
    "a scheduled time does not wait for the work above it",
}


@pytest.mark.parametrize("defect", DEFECTS, ids=lambda defect: str(defect.name))
def test_a_defect_can_still_be_planted_and_its_test_is_still_there(defect: Defect) -> None:
    text = defect.path.read_text("utf-8")
    assert defect.plant(text) != text
    file, _, name = defect.test.partition("::")
    tree = ast.parse((ROOT / "tests" / file).read_text("utf-8"))
    functions = {
        node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
    }
    assert name.partition("[")[0] in functions


def test_each_defect_has_its_name() -> None:
    names = [defect.name for defect in DEFECTS]
    assert len(set(names)) == len(names) >= 20
    assert set(names) >= _QUICK


@pytest.mark.faults
@pytest.mark.parametrize(
    "defect",
    [defect for defect in DEFECTS if campaigns.IS_FULL or defect.name in _QUICK],
    ids=lambda defect: str(defect.name),
)
def test_a_planted_defect_is_noticed(defect: Defect, tmp_path: Path) -> None:
    ended = run_with(defect, tmp_path)
    assert f"FAILED tests/{defect.test}" in ended.stdout, ended.stdout[-3000:]
    assert ended.returncode == 1


@pytest.mark.faults
@pytest.mark.skipif(not campaigns.IS_FULL, reason="the whole suite runs these tests")
@pytest.mark.parametrize("defect", DEFECTS, ids=lambda defect: str(defect.name))
def test_without_the_defect_the_same_copy_passes(defect: Defect, tmp_path: Path) -> None:
    ended = run_with(defect, tmp_path, is_planted=False)
    assert ended.returncode == 0, ended.stdout[-3000:]
