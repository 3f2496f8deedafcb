"""The command lines and the environment of the four services and the worker."""

import functools
import json
import sys
from collections.abc import Mapping
from datetime import UTC, datetime
from urllib.parse import urlsplit

from devstack import checks, nats, prefect
from devstack.config import Settings
from devstack.endpoints import Endpoints
from devstack.processes import Program
from devstack.state import State

_PYTHON = (sys.executable, "-P", "-m")  # -P: the working folder is no place to import from


def _common(settings: Settings, endpoints: Endpoints, holder: str) -> dict[str, str]:
    return {
        **endpoints.addresses(),
        "OPTAIC_PREFECT_API_URL": endpoints.prefect_api,
        "OPTAIC_MLFLOW_URL": endpoints.mlflow,
        "OPTAIC_EVIDENTLY_WORKSPACE": endpoints.evidently_workspace,
        "OPTAIC_SERVICE_TOKEN": _service_token(endpoints),
        "OPTAIC_DATA_ROOT": endpoints.data_root,
        "OPTAIC_WORK_POOL": settings.work_pool,
        # With TLS, certificates say who services and workers are; without, this shell's files are for services elsewhere.
        **endpoints.tls(holder),
        "OPTAIC_TLS_CLIENT_CA": "",
    }


def _service_token(endpoints: Endpoints) -> str:
    return "" if endpoints.certificates else endpoints.service_token


def make_service(
    name: str,
    settings: Settings,
    endpoints: Endpoints,
    secrets: Mapping[str, str],
    databases: Mapping[str, str],
) -> Program:
    """Return the program of one of the four services."""
    address: str = getattr(endpoints, name)
    own_nats = nats.make_url(urlsplit(endpoints.nats).port or 4222, name, secrets[f"nats_{name}"])
    probe = endpoints.probe(name)
    return Program(
        name=f"{name}-service",
        argv=(*_PYTHON, f"{name}_service"),
        environment={
            **_common(settings, endpoints, f"{name}-service"),
            "OPTAIC_TLS_CLIENT_CA": endpoints.tls(name)["OPTAIC_TLS_CA"],
            "OPTAIC_LISTEN": address,
            "OPTAIC_DATABASE_URL": databases["app"],
            "OPTAIC_DATABASE_OWNER_URL": databases["owner"],
            "OPTAIC_DATABASE_INFRA_URL": databases["infra"],
            "OPTAIC_NATS_URL": settings.nats_url or (endpoints.nats if endpoints.certificates else own_nats),
            "OPTAIC_AUTH": endpoints.auth,
            "OPTAIC_TOKENS_FILE": endpoints.tokens_file,
            "OPTAIC_EXECUTOR_TOKENS_FILE": endpoints.executor_tokens_file,
        },
        ready=functools.partial(checks.grpc_serves, *probe),
        find_problem=functools.partial(checks.find_grpc_problem, *probe),
    )


def _own_data(state: State, endpoints: Endpoints) -> list[str]:
    """Return the folders that belong to the stack, which no source may name."""
    return [str(state.root), *([] if "://" in endpoints.data_root else [endpoints.data_root])]


def _identity_of_worker(state: State, settings: Settings, endpoints: Endpoints) -> dict[str, str]:
    """Return what the worker shows to the services: the certificate or executor token of the only tenant, if there is one.

    With several tenants the one worker acts for all of them, with the token of the services; docs/security.md says so.
    """
    if len(settings.tenants) > 1:
        return {"OPTAIC_TENANTS": json.dumps(settings.tenants)}
    (tenant,) = settings.tenants
    return {
        "OPTAIC_TENANTS": json.dumps([tenant]),
        "OPTAIC_EXECUTOR_TOKEN": ""
        if endpoints.certificates
        else state.executor_tokens(settings.tenants)[tenant],
        "OPTAIC_SERVICE_TOKEN": "",
    }


def make_worker(state: State, settings: Settings, endpoints: Endpoints) -> Program:
    """Return the program of the worker for one work pool: our warm worker, or Prefect's own."""
    commands = {
        "warm": (*_PYTHON, "worker"),
        "process": (
            *(*_PYTHON, "prefect", "worker", "start", "--pool", settings.work_pool),
            *("--type", "process", "--name", "devstack", "--install-policy", "never"),
        ),
    }
    environment = {
        **_common(settings, endpoints, f"worker-{settings.tenants[0]}"),
        **_identity_of_worker(state, settings, endpoints),
        "OPTAIC_SOURCE_ROOTS": json.dumps(settings.source_roots),
        "OPTAIC_SOURCE_EXCLUDED": json.dumps([*settings.source_excluded, *_own_data(state, endpoints)]),
        "OPTAIC_RUN_OUTPUT_FOLDER": str(state.logs / "runs"),
        # Prefect's own worker starts each run in a process that has no -P.
        **({"PYTHONSAFEPATH": "1"} if settings.executor == "process" else {}),
        "PREFECT_API_URL": endpoints.prefect_api,
        "PREFECT_HOME": str(state.root / "prefect-worker"),
        "PREFECT_WORKER_QUERY_SECONDS": "1",
        "PREFECT_LOGGING_TO_API_WHEN_MISSING_FLOW": "ignore",
    }
    # A worker listens on no port; Prefect knows when it was last asked for work.
    ready = functools.partial(
        prefect.is_polled, endpoints.prefect_api, settings.work_pool, datetime.now(UTC), settings.https_ca
    )
    # Runs that outlive it report that they were stopped, and tell Prefect.
    return Program("worker", commands[settings.executor], ready, environment, farewell_seconds=5.0)
