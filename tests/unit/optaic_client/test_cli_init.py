"""`optaic init`: a package whose own tests pass, in a folder that had no files."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from support.command_line import invoke


def test_the_tests_of_the_written_package_pass(tmp_path: Path) -> None:
    folder = tmp_path / "acme-research"
    listed = invoke("init", str(folder)).stdout.splitlines()
    assert sorted(listed) == sorted(str(path) for path in folder.rglob("*") if path.is_file())
    tests = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-p", "no:asyncio"]
    done = subprocess.run(tests, cwd=folder, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout
    assert "5 passed" in done.stdout


def test_nothing_of_the_templates_is_left(tmp_path: Path) -> None:
    files = json.loads(invoke("init", str(tmp_path / "desk"), "-o", "json").stdout)["files"]
    for path in map(Path, files):
        assert "__PACKAGE__" not in path.read_text()
        assert "__NAME__" not in path.read_text()
    assert (tmp_path / "desk" / "desk" / "definitions" / "walk.json").exists()


def test_ruff_finds_nothing_in_the_written_code(tmp_path: Path) -> None:
    invoke("init", str(tmp_path / "desk"))
    command = [
        sys.executable,
        "-m",
        "ruff",
        "check",
        "--isolated",
        "--select",
        "E,F,I,B,UP,D1",
        "--line-length",
        "110",
    ]
    done = subprocess.run(
        [*command, "--ignore", "D103", "."],
        cwd=tmp_path / "desk",
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout


def test_an_empty_folder_is_accepted(tmp_path: Path) -> None:
    (tmp_path / "desk").mkdir()
    invoke("init", str(tmp_path / "desk"))


def test_a_folder_that_has_files_is_refused(tmp_path: Path) -> None:
    folder = tmp_path / "desk"
    folder.mkdir()
    (folder / "notes").write_text("mine")
    assert "has files" in invoke("init", str(folder), status=4).stderr
    assert [path.name for path in folder.iterdir()] == ["notes"]


@pytest.mark.parametrize(
    "name", ["json", "class", "optaic", "tests", "Desk", "1desk", "desk.x", "a b", "é", "a" * 51]
)
def test_a_name_that_no_package_may_have_is_refused(tmp_path: Path, name: str) -> None:
    invoke("init", str(tmp_path / name), status=2)
    assert list(tmp_path.iterdir()) == []


def test_a_file_in_place_of_the_folder_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "desk").write_text("")
    assert "cannot be written" in invoke("init", str(tmp_path / "desk"), status=1).stderr
