"""The client reads the data of a stack on this machine with the credential that the stack's state has for its tenant."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from optaic import storage
from optaic.client.discovery import SERVICES, find_object_store

ADDRESSES = {service: f"127.0.0.1:{port}" for port, service in enumerate(SERVICES, 1)}
STORE: Mapping[str, Any] = {
    **ADDRESSES,
    "data_root": "s3://optaic/data",
    "s3_endpoint": "http://127.0.0.1:9",
    "s3_logins": {"default": "optaic-default:a", "acme": "optaic-acme:b"},
}


@pytest.fixture(autouse=True)
def _state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("ENDPOINT", "ACCESS_KEY_ID", "SECRET_ACCESS_KEY"):
        monkeypatch.delenv(f"OPTAIC_S3_{name}", raising=False)
    monkeypatch.setenv("OPTAIC_STATE", str(tmp_path))
    _write(tmp_path, STORE)


def _write(folder: Path, endpoints: Mapping[str, Any]) -> None:
    (folder / "stack.json").write_text(json.dumps({"endpoints": endpoints}))


@pytest.mark.parametrize(("tenant", "secret"), [("default", "a"), ("acme", "b")])
def test_the_data_of_a_tenant_is_read_with_its_credential(tenant: str, secret: str) -> None:
    found = find_object_store(ADDRESSES, f"s3://optaic/data/{tenant}/i/refresh/data")
    with storage.found(found):
        access = storage.current()
        assert (access.endpoint, access.access_key_id, access.secret_access_key) == (
            "http://127.0.0.1:9",
            f"optaic-{tenant}",
            secret,
        )
    assert storage.current().endpoint == ""


def test_a_place_that_data_is_moved_to_is_reached_before_the_data_is_there(tmp_path: Path) -> None:
    _write(tmp_path, {**STORE, "data_root": "file:///data", "s3_root": "s3://optaic/data"})
    assert find_object_store(ADDRESSES, "s3://optaic/data/acme/")["OPTAIC_S3_ACCESS_KEY_ID"] == "optaic-acme"
    assert find_object_store(ADDRESSES, "file:///data/acme/") == {}


@pytest.mark.parametrize(
    ("addresses", "uri", "environment"),
    [
        (ADDRESSES, "s3://optaic/other/default/x", {}),
        (ADDRESSES, "s3://elsewhere/data/default/x", {}),
        (ADDRESSES, "file:///data/default/x", {}),
        ({**ADDRESSES, "run": "10.0.0.1:1"}, "s3://optaic/data/default/x", {}),
        (ADDRESSES, "s3://optaic/data/default/x", {"OPTAIC_S3_ENDPOINT": "https://s3.example"}),
        (ADDRESSES, "s3://optaic/data/default/x", {"OPTAIC_S3_ACCESS_KEY_ID": "mine"}),
    ],
)
def test_what_is_not_the_stack_s_is_read_as_the_environment_says(
    addresses: Mapping[str, str], uri: str, environment: Mapping[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert find_object_store(addresses, uri) == {}


@pytest.mark.parametrize("more", [{"s3_endpoint": "", "s3_logins": {}}, {}])
def test_a_stack_without_an_object_store_gives_nothing(tmp_path: Path, more: Mapping[str, Any]) -> None:
    _write(tmp_path, {**ADDRESSES, "data_root": "file:///data", **more})
    assert find_object_store(ADDRESSES, "file:///data/default/x") == {}


def test_the_patience_of_the_environment_counts_beside_what_was_found(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("OPTAIC_S3_PATIENCE_SECONDS", "7")
    with storage.found(find_object_store(ADDRESSES, "s3://optaic/data/acme/x")):
        assert (storage.current().patience_seconds, storage.current().endpoint) == (7, "http://127.0.0.1:9")


def test_what_a_process_has_installed_comes_first() -> None:
    before = storage.installed()
    storage.install(storage.Access(endpoint="https://installed"))
    try:
        with storage.found({"OPTAIC_S3_ENDPOINT": "http://127.0.0.1:9"}):
            assert storage.current().endpoint == "https://installed"
    finally:
        storage.install(before)
