"""Each tenant gets a worker of its own, which holds the credentials of this tenant and of no other."""

import json
from pathlib import Path
from typing import Any

import pytest

from devstack import programs
from devstack.config import SERVICES, Settings
from devstack.endpoints import Endpoints
from devstack.processes import Program, environment_of_child
from devstack.state import State

SHARED = {
    "OPTAIC_SERVICE_TOKEN": "of-the-services",
    "OPTAIC_SECRET_WAREHOUSE": "hidden",
    "OPTAIC_SECRETS_FOLDER": "/s",
}


def _derive(folder: Path, **changes: Any) -> tuple[Settings, State, Endpoints]:
    settings = Settings(state=folder, **changes)
    state = State(folder)
    state.create()
    chosen = dict.fromkeys((*SERVICES, "postgres", "nats", "nats_monitor", "prefect", "mlflow", "gateway"), 1)
    return settings, state, Endpoints.derive(settings, state, chosen, state.secrets())


def make_workers(folder: Path, *tenants: str, **changes: Any) -> dict[str, Program]:
    """Return the workers of a stack with these tenants."""
    settings, state, endpoints = _derive(folder, tenants=tenants, **changes)
    names = programs.name_workers(settings)
    return {name: programs.make_worker(name, state, settings, endpoints) for name in names}


def environment(worker: Program, monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """Return what a worker gets if the supervisor has more than it should have."""
    for name, value in SHARED.items():
        monkeypatch.setenv(name, value)
    return environment_of_child(worker.environment, worker.withheld)


def test_the_only_tenant_has_the_worker_and_the_secrets_of_the_environment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for tenant in ("default", "acme"):
        ((name, worker),) = make_workers(tmp_path / tenant, tenant).items()
        given = environment(worker, monkeypatch)
        assert name == "worker"
        assert json.loads(given["OPTAIC_TENANTS"]) == [tenant]
        assert given["OPTAIC_SECRET_WAREHOUSE"] == "hidden"
        assert "OPTAIC_SERVICE_TOKEN" not in given
        assert given["OPTAIC_RUN_OUTPUT_FOLDER"] == str(tmp_path / tenant / "logs" / "runs")


def test_the_gateway_gets_addresses_and_no_secret(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _, state, endpoints = _derive(tmp_path, auth="tokens")
    given = environment(programs.make_gateway(endpoints, state.secrets()), monkeypatch)
    assert given["OPTAIC_LISTEN"] == endpoints.gateway.removeprefix("http://") == "127.0.0.1:1"
    assert given["OPTAIC_AUTH"] == "tokens"
    assert given["OPTAIC_RUN_ADDRESS"] == endpoints.run
    assert given["OPTAIC_DATA_ROOT"] == endpoints.data_root
    # With it, run-service signs the URLs of files.
    assert given["OPTAIC_ARTIFACT_URL_KEY"] == state.secrets()["artifact_urls"]
    assert not {"OPTAIC_SERVICE_TOKEN", "OPTAIC_SECRET_WAREHOUSE"} & set(given)
    assert not {value for name, value in given.items() if endpoints.service_token in value}


def test_a_stack_without_the_gateway_or_its_extra_has_no_address_of_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert _derive(tmp_path / "off", gateway=False)[2].gateway == ""
    monkeypatch.setattr("importlib.util.find_spec", lambda _: None)
    assert _derive(tmp_path / "missing")[2].gateway == ""


def test_the_workers_of_several_tenants_share_no_credential(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    workers = make_workers(tmp_path, "default", "acme", "rival")
    assert list(workers) == ["worker-default", "worker-acme", "worker-rival"]
    given = {name: environment(worker, monkeypatch) for name, worker in workers.items()}
    assert [json.loads(each["OPTAIC_TENANTS"]) for each in given.values()] == [
        ["default"],
        ["acme"],
        ["rival"],
    ]
    for own in ("OPTAIC_EXECUTOR_TOKEN", "OPTAIC_RUN_OUTPUT_FOLDER", "PREFECT_HOME"):
        assert len({each[own] for each in given.values()}) == 3, own
    for each in given.values():
        assert not {"OPTAIC_SERVICE_TOKEN", "OPTAIC_SECRET_WAREHOUSE"} & each.keys()
        assert each["OPTAIC_SECRETS_FOLDER"] == "/s"  # it has a folder for each tenant
        others = {other["OPTAIC_EXECUTOR_TOKEN"] for other in given.values() if other is not each}
        assert not others.intersection(each.values())


def test_prefects_own_worker_polls_the_pool_of_its_tenant(tmp_path: Path) -> None:
    workers = make_workers(tmp_path, "default", "acme", executor="process", work_pool="shared")
    pools = {name: worker.argv[worker.argv.index("--pool") + 1] for name, worker in workers.items()}
    assert pools == {"worker-default": "shared", "worker-acme": "shared-acme"}
    assert all(worker.environment["PYTHONSAFEPATH"] == "1" for worker in workers.values())


@pytest.mark.parametrize("tls", [False, True])
def test_only_who_calls_a_tool_has_its_login(tmp_path: Path, tls: bool) -> None:
    settings, state, endpoints = _derive(tmp_path, tls=tls)
    databases = dict.fromkeys(("owner", "app", "infra"), "postgresql://")
    given = {
        name: programs.make_service(name, settings, endpoints, state.secrets(), databases).environment
        for name in SERVICES
    }
    (given["worker"],) = (each.environment for each in make_workers(tmp_path, "default", tls=tls).values())
    prefect, mlflow = endpoints.prefect_login, endpoints.mlflow_login.partition(":")[2]
    assert {name for name, each in given.items() if prefect in each.values()} == {"instance", "run", "worker"}
    assert {name for name, each in given.items() if mlflow in each.values()} == {"instance", "worker"}
    assert given["worker"]["OPTAIC_PREFECT_AUTH_STRING"] == prefect
    assert "PREFECT_API_AUTH_STRING" not in given["worker"], "which only Prefect's own worker reads"


def test_prefects_own_worker_logs_in_as_prefect_wants_it(tmp_path: Path) -> None:
    _, _, endpoints = _derive(tmp_path)
    (worker,) = make_workers(tmp_path, "default", executor="process").values()
    assert worker.environment["PREFECT_API_AUTH_STRING"] == endpoints.prefect_login


def test_a_tool_of_somebody_else_keeps_its_own_login(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    theirs = {"prefect_api_url": "http://127.0.0.1:4200/api", "mlflow_url": "http://127.0.0.1:5000"}
    _, _, endpoints = _derive(tmp_path, **theirs)
    assert (endpoints.prefect_login, endpoints.mlflow_login) == ("", "")
    monkeypatch.setenv("OPTAIC_PREFECT_AUTH_STRING", "team:own")
    (worker,) = make_workers(tmp_path, "default", **theirs).values()
    assert environment(worker, monkeypatch)["OPTAIC_PREFECT_AUTH_STRING"] == "team:own"
