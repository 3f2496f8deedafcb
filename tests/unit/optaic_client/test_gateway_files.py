"""Where the client finds the gateway, and when it asks it for a file."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from optaic.client.discovery import SERVICES, find_gateway
from optaic.client.reading import is_out_of_reach

ADDRESSES = {service: f"127.0.0.1:{port}" for port, service in enumerate(SERVICES, 1)}
URL = "http://127.0.0.1:9"


@pytest.fixture(autouse=True)
def _state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OPTAIC_GATEWAY_URL", raising=False)
    monkeypatch.setenv("OPTAIC_STATE", str(tmp_path))
    (tmp_path / "stack.json").write_text(json.dumps({"endpoints": {**ADDRESSES, "gateway": URL}}))


def test_the_gateway_of_a_stack_serves_clients_of_this_stack(monkeypatch: pytest.MonkeyPatch) -> None:
    assert find_gateway(ADDRESSES) == URL
    assert find_gateway({**ADDRESSES, "run": "10.0.0.1:1"}) == ""
    assert find_gateway({}) == ""
    monkeypatch.setenv("OPTAIC_GATEWAY_URL", "https://optaic.example.com")
    assert find_gateway({}) == "https://optaic.example.com"


def test_a_stack_without_a_gateway_has_none(tmp_path: Path) -> None:
    (tmp_path / "stack.json").write_text(json.dumps({"endpoints": ADDRESSES}))
    assert find_gateway(ADDRESSES) == ""


def test_a_fileis_out_of_reach_if_its_folder_is(tmp_path: Path) -> None:
    assert not is_out_of_reach(str(tmp_path / "lost"))
    assert is_out_of_reach(str(tmp_path / "no folder" / "file"))
    assert is_out_of_reach((tmp_path / "no folder" / "file").as_uri())
    assert is_out_of_reach("s3://bucket/file")
