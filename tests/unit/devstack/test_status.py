"""What `python -m devstack status` prints, and its exit status, when no stack runs."""

import json
from pathlib import Path

import pytest

from devstack.__main__ import main


@pytest.fixture(autouse=True)
def state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return a folder in which no stack has ever run."""
    monkeypatch.setenv("OPTAIC_STATE", str(tmp_path / "state"))
    return tmp_path / "state"


def test_status_of_a_stopped_stack_says_how_to_start_it(
    state: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("sys.argv", ["devstack", "status"])
    assert main() == 3
    printed = capsys.readouterr().out
    assert printed == f"the stack is not running; `make up` starts it. Its data is in {state}\n"


def test_status_of_a_stopped_stack_as_json_stays_json(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("sys.argv", ["devstack", "status", "--json"])
    assert main() == 3
    assert json.loads(capsys.readouterr().out)["phase"] == "stopped"
