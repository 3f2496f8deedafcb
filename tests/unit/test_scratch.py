"""Where throw-away servers store: nothing stays, whoever has been killed."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from support import scratch


def test_a_folder_is_there_as_long_as_it_is_used() -> None:
    with scratch.server_folder() as folder:
        (folder / "data").touch()
    assert not folder.exists()


@pytest.mark.skipif(sys.platform != "linux", reason="there are no files in memory")
def test_folders_of_dead_processes_are_removed_and_those_of_living_ones_are_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(scratch, "_MEMORY", tmp_path)
    monkeypatch.setattr(scratch, "_NEEDED", 0)
    dead = subprocess.Popen([sys.executable, "-c", ""])
    dead.wait()
    left = tmp_path / f"optaic-tests-{dead.pid}-x"
    living = tmp_path / f"optaic-tests-{os.getpid()}-x"
    foreign = tmp_path / "optaic-tests-x"
    for each in (left, living, foreign):
        (each / "data").mkdir(parents=True)
    with scratch.server_folder() as folder:
        assert folder.parent == tmp_path
        assert not left.exists()
        assert living.exists()
        assert foreign.exists()


def test_a_folder_is_on_disk_if_memory_is_short(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scratch, "_MEMORY", tmp_path)
    monkeypatch.setattr(scratch, "_NEEDED", 2**60)
    with scratch.server_folder() as folder:
        assert folder.parent != tmp_path
