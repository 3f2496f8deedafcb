"""The configuration of Centrifugo that the docs show is the one with which it is tested."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from devstack import centrifugo
from devstack.processes import StartError
from support.contract import ROOT


def test_the_documented_configuration_is_ours() -> None:
    page = (ROOT / "docs" / "realtime.md").read_text()
    (shown,) = [each for each in re.findall(r"```json\n(.*?)```", page, re.DOTALL) if "http_server" in each]
    ours = centrifugo.render_config(8000, "API_KEY", "TOKEN_KEY", ["https://research.example"])
    assert json.loads(shown) == json.loads(ours)


def test_a_named_program_is_used_and_a_missing_one_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(StartError, match="no program `centrifugo` is on the PATH: install"):
        centrifugo.require_binary()
    with pytest.raises(StartError, match=f"OPTAIC_CENTRIFUGO_BINARY={tmp_path} is no program"):
        centrifugo.require_binary(str(tmp_path))
    program = tmp_path / "centrifugo"
    program.write_text("")
    program.chmod(0o700)
    assert centrifugo.require_binary() == program
    assert centrifugo.require_binary(str(program)) == program
