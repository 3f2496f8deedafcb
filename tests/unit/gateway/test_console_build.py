"""The console is built as it is kept: the same sources and packages give the same bytes on every machine."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from support.contract import ROOT

SOURCE = ROOT / "services" / "gateway" / "console"
BUILT = ROOT / "services" / "gateway" / "built_console"
_SECONDS = 300


def test_the_built_console_is_what_its_sources_give(tmp_path: Path) -> None:
    if missing := [each for each in ("npm", "node") if shutil.which(each) is None]:
        pytest.skip(f"not installed: {', '.join(missing)}")
    gateway = tmp_path / "services" / "gateway"
    copy = gateway / "console"
    shutil.copytree(SOURCE, copy, ignore=shutil.ignore_patterns("node_modules", "gen"))
    for each in ("buf.yaml", "protos", "third_party"):
        (tmp_path / each).symlink_to(ROOT / each)
    programs = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    for command in (
        ("npm", "ci", "--ignore-scripts", "--no-audit", "--no-fund"),
        ("npm", "run", "generate"),
        ("npm", "run", "check"),
        ("npm", "run", "build"),
    ):
        done = subprocess.run(
            command,
            cwd=copy,
            capture_output=True,
            text=True,
            timeout=_SECONDS,
            check=False,
            env={**os.environ, "PATH": programs},
        )
        assert done.returncode == 0, done.stdout + done.stderr
    built = {
        each.relative_to(gateway / "built_console"): each.read_bytes()
        for each in files_of(gateway / "built_console")
    }
    kept = {each.relative_to(BUILT): each.read_bytes() for each in files_of(BUILT)}
    assert sorted(built) == sorted(kept), "run make console"
    assert built == kept, "run make console"


def files_of(folder: Path) -> list[Path]:
    return [each for each in folder.rglob("*") if each.is_file()]
