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


def make_workers(folder: Path, *tenants: str, **changes: Any) -> dict[str, Program]:
    """Return the workers of a stack with these tenants."""
    settings = Settings(state=folder, tenants=tenants, **changes)
    state = State(folder)
    state.create()
    chosen = dict.fromkeys((*SERVICES, "postgres", "nats", "nats_monitor", "prefect", "mlflow"), 1)
    endpoints = Endpoints.derive(settings, state, chosen, state.secrets())
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
