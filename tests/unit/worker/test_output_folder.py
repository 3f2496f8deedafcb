"""The folder for what runs print is the worker's alone, whoever was there before."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from servicekit.ids import new_id
from worker.run_output import OutputFolderRefusedError, OutputLimits, RunOutput, prepare_folder

SOMEBODY = 12345


def _print(folder: Path) -> RunOutput:
    output = RunOutput(OutputLimits(str(folder / f"{new_id()}.log"), 1000, 10))
    output.write(b"the position of the fund\n")
    output.close()
    return output


def test_it_is_made_for_the_worker_alone(tmp_path: Path) -> None:
    umask = os.umask(0)
    try:
        assert _print(tmp_path / "output").dropped == 0
    finally:
        os.umask(umask)
    assert (tmp_path / "output").stat().st_mode & 0o777 == 0o700


@pytest.mark.parametrize("mode", [0o700, 0o750, 0o755])
def test_one_of_the_workers_own_is_taken(tmp_path: Path, mode: int) -> None:
    (tmp_path / "output").mkdir()
    (tmp_path / "output").chmod(mode)
    assert _print(tmp_path / "output").dropped == 0


def _link(folder: Path) -> None:
    (folder.parent / "elsewhere").mkdir(mode=0o700)
    folder.symlink_to(folder.parent / "elsewhere")


def _dangle(folder: Path) -> None:
    folder.symlink_to(folder.parent / "nowhere")


def _open(folder: Path) -> None:
    folder.mkdir()
    folder.chmod(0o777)


def _share(folder: Path) -> None:
    folder.mkdir()
    folder.chmod(0o770)


def _give_away(folder: Path) -> None:
    if os.geteuid() != 0:
        pytest.skip("only root can give a folder away")
    folder.mkdir(mode=0o700)
    os.chown(folder, SOMEBODY, SOMEBODY)


@pytest.mark.parametrize(
    ("prepare", "said"),
    [
        (_link, "is a link to "),
        (_open, "mode 0777"),
        (_share, "mode 0770"),
        (_give_away, f"belongs to user {SOMEBODY}"),
    ],
)
def test_a_folder_that_others_can_access_is_refused(
    tmp_path: Path, prepare: Callable[[Path], None], said: str
) -> None:
    folder = tmp_path / "output"
    prepare(folder)
    with pytest.raises(OutputFolderRefusedError, match=said) as refused:
        prepare_folder(folder)
    assert "OPTAIC_RUN_OUTPUT_FOLDER: " in str(refused.value)
    assert "or set another folder" in str(refused.value)
    output = _print(folder)
    assert output.dropped == len("the position of the fund\n"), "the run goes on, and counts what it lost"
    assert said in output.fault
    assert list(folder.iterdir()) == []


def test_a_dangling_link_does_not_count_as_a_folder(tmp_path: Path) -> None:
    _dangle(tmp_path / "output")
    with pytest.raises(OSError, match="output"):
        prepare_folder(tmp_path / "output")
    assert _print(tmp_path / "output").dropped > 0
    assert not (tmp_path / "nowhere").exists()


def test_a_worker_with_a_foreign_folder_does_not_start_and_names_the_remedy(tmp_path: Path) -> None:
    _open(tmp_path / "output")
    environment = {
        **os.environ,
        "OPTAIC_INSTANCE_ADDRESS": "127.0.0.1:9",
        "OPTAIC_RUN_ADDRESS": "127.0.0.1:9",
        "OPTAIC_EXECUTOR_TOKEN": "secret",
        "OPTAIC_DATA_ROOT": str(tmp_path),
        "OPTAIC_RUN_OUTPUT_FOLDER": str(tmp_path / "output"),
    }
    done = subprocess.run(
        [sys.executable, "-m", "worker"], env=environment, capture_output=True, check=False, timeout=120
    )
    assert done.returncode != 0
    assert f"{tmp_path}/output is writable for other users" in done.stderr.decode()
