"""The command lines and the environment of the four services and the workers."""

import functools
import json
import sys
from collections.abc import Mapping
from datetime import UTC, datetime
from urllib.parse import urlsplit

from devstack import checks, nats, prefect, seaweedfs
from devstack.config import Settings
from devstack.endpoints import Endpoints
from devstack.processes import Program
from devstack.state import State
from optaic.rules.deployments import work_pool_of
from redaction import PREFIX as _SECRETS

GATEWAY = "gateway"
_PYTHON = (sys.executable, "-P", "-m")  # -P: the working folder is no place to import from


def _common(settings: Settings, endpoints: Endpoints, holder: str) -> dict[str, str]:
    return {
        **endpoints.addresses(),
        "OPTAIC_PREFECT_API_URL": endpoints.prefect_api,
        "OPTAIC_MLFLOW_URL": endpoints.mlflow,
        "OPTAIC_EVIDENTLY_WORKSPACE": endpoints.evidently_workspace,
        "OPTAIC_DATA_ROOT": endpoints.data_root,
        "OPTAIC_WORK_POOL": settings.work_pool,
        # With TLS, certificates say who services and workers are; without, this shell's files are for services elsewhere.
        **endpoints.tls(holder),
        "OPTAIC_TLS_CLIENT_CA": "",
    }


def _service_token(endpoints: Endpoints) -> str:
    return "" if endpoints.certificates else endpoints.service_token


def _logins(service: str, endpoints: Endpoints) -> dict[str, str]:
    """Return the logins to the stack's own tools, for the services that call them."""
    prefect_ = endpoints.prefect_credentials() if service in {"instance", "run"} else {}
    mlflow = endpoints.mlflow_credentials() if service == "instance" else {}
    store = endpoints.s3_credentials(seaweedfs.SIGNER) if service == "run" else {}
    return {**prefect_, **mlflow, **store}


def _live_messages(
    service: str, settings: Settings, endpoints: Endpoints, secrets: Mapping[str, str]
) -> dict[str, str]:
    """Return what the services need that publish to the stack's own Centrifugo or give tokens for it."""
    tenants = {"OPTAIC_TENANTS": json.dumps(settings.tenants)} if service == "status" else {}
    if not endpoints.centrifugo or service not in {"run", "status"}:
        return tenants
    token = {"OPTAIC_CENTRIFUGO_TOKEN_KEY": secrets["centrifugo_token"]} if service == "status" else {}
    return {
        **tenants,
        **token,
        "OPTAIC_CENTRIFUGO_URL": endpoints.centrifugo,
        "OPTAIC_CENTRIFUGO_API_KEY": secrets["centrifugo_api"],
    }


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
            **_logins(name, endpoints),
            **_live_messages(name, settings, endpoints, secrets),
            "OPTAIC_TLS_CLIENT_CA": endpoints.tls(name)["OPTAIC_TLS_CA"],
            "OPTAIC_SERVICE_TOKEN": _service_token(endpoints),
            "OPTAIC_LISTEN": address,
            "OPTAIC_DATABASE_URL": databases["app"],
            "OPTAIC_DATABASE_OWNER_URL": databases["owner"],
            "OPTAIC_DATABASE_INFRA_URL": databases["infra"],
            "OPTAIC_NATS_URL": settings.nats_url or (endpoints.nats if endpoints.certificates else own_nats),
            "OPTAIC_AUTH": endpoints.auth,
            "OPTAIC_TOKENS_FILE": endpoints.tokens_file,
            "OPTAIC_EXECUTOR_TOKENS_FILE": endpoints.executor_tokens_file,
            **(_signed_urls(endpoints, secrets) if name == "run" else {}),
        },
        ready=functools.partial(checks.grpc_serves, *probe),
        find_problem=functools.partial(checks.find_grpc_problem, *probe),
    )


def _signed_urls(endpoints: Endpoints, secrets: Mapping[str, str]) -> dict[str, str]:
    """Return what run-service and the gateway need for URLs of files; nothing without a gateway."""
    if not endpoints.gateway:
        return {}
    return {"OPTAIC_GATEWAY_URL": endpoints.gateway, "OPTAIC_ARTIFACT_URL_KEY": secrets["artifact_urls"]}


def make_gateway(endpoints: Endpoints, secrets: Mapping[str, str]) -> Program:
    """Return the program of the gateway; it serves this machine only."""
    host = endpoints.gateway.partition("//")[2]
    return Program(
        name=GATEWAY,
        argv=(*_PYTHON, "gateway"),
        environment={
            **endpoints.addresses(),
            **endpoints.tls(GATEWAY),
            # It serves the files of runs; like run-service it may read them, and write none.
            **endpoints.s3_credentials(seaweedfs.SIGNER),
            "OPTAIC_ARTIFACT_URL_KEY": secrets["artifact_urls"],
            "OPTAIC_DATA_ROOT": endpoints.data_root,
            "OPTAIC_LISTEN": host,
            "OPTAIC_AUTH": endpoints.auth,
            "OPTAIC_HTTPS_CERTIFICATE": "",
            "OPTAIC_HTTPS_KEY": "",
        },
        ready=functools.partial(checks.http_answers, host, "/healthz"),
        # It has no right of its own, so it gets no secrets but those of the data and of the URLs of files.
        withheld=("OPTAIC_SERVICE_TOKEN", _SECRETS),
        find_problem=functools.partial(checks.find_http_problem, host, "/healthz"),
    )


def _own_data(state: State, endpoints: Endpoints) -> list[str]:
    """Return the folders that belong to the stack, which no source may name."""
    return [str(state.root), *([] if "://" in endpoints.data_root else [endpoints.data_root])]


def name_workers(settings: Settings) -> dict[str, str]:
    """Return the tenant of each worker, by the worker's name; a worker serves one tenant."""
    if len(settings.tenants) == 1:
        return {"worker": settings.tenants[0]}
    return {f"worker-{tenant}": tenant for tenant in settings.tenants}


def make_worker(name: str, state: State, settings: Settings, endpoints: Endpoints) -> Program:
    """Return the program of a tenant's worker for the tenant's work pool: our warm worker, or Prefect's own."""
    workers = name_workers(settings)
    tenant, is_only = workers[name], len(workers) == 1
    suffix = "" if is_only else f"-{tenant}"  # of its own files
    pool = work_pool_of(settings.work_pool, tenant)
    commands = {
        "warm": (*_PYTHON, "worker"),
        "process": (
            *(*_PYTHON, "prefect", "worker", "start", "--pool", pool),
            *("--type", "process", "--name", "devstack", "--install-policy", "never"),
        ),
    }
    environment = {
        **_common(settings, endpoints, f"worker-{tenant}"),
        **endpoints.prefect_credentials(),
        **endpoints.mlflow_credentials(),
        **endpoints.s3_credentials(tenant),
        "OPTAIC_TENANTS": json.dumps([tenant]),
        "OPTAIC_EXECUTOR_TOKEN": ""
        if endpoints.certificates
        else state.executor_tokens(settings.tenants)[tenant],
        "OPTAIC_SOURCE_ROOTS": json.dumps(settings.source_roots),
        "OPTAIC_SOURCE_EXCLUDED": json.dumps([*settings.source_excluded, *_own_data(state, endpoints)]),
        "OPTAIC_RUN_OUTPUT_FOLDER": str(state.logs / f"runs{suffix}"),
        "OPTAIC_TELEMETRY_FOLDER": str(state.root / f"telemetry{suffix}"),
        # Prefect's own worker starts each run in a process that has no -P.
        **({"PYTHONSAFEPATH": "1"} if settings.executor == "process" else {}),
        **(
            {"PREFECT_API_AUTH_STRING": endpoints.prefect_login}
            if settings.executor == "process" and endpoints.prefect_login
            else {}
        ),
        "PREFECT_API_URL": endpoints.prefect_api,
        "PREFECT_HOME": str(state.root / f"prefect-worker{suffix}"),
        "PREFECT_WORKER_QUERY_SECONDS": "1",
        "PREFECT_LOGGING_TO_API_WHEN_MISSING_FLOW": "ignore",
    }
    return Program(
        name,
        commands[settings.executor],
        # A worker listens on no port; Prefect knows when it was last asked for work.
        functools.partial(
            prefect.is_polled,
            endpoints.prefect_api,
            pool,
            datetime.now(UTC),
            settings.https_ca,
            endpoints.prefect_login,
        ),
        environment,
        # The secrets of the environment say nothing of tenants, so with several tenants they are nobody's.
        withheld=("OPTAIC_SERVICE_TOKEN", *(() if is_only else (_SECRETS,))),
        # Runs that outlive it report that they were stopped, and tell Prefect.
        farewell_seconds=5.0,
    )
