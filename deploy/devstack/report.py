"""Report a stack: what runs, what answers, and how to use it; changes nothing."""

import asyncio
import ssl
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from devstack import checks, leftovers, seaweedfs
from devstack.config import SERVICES
from devstack.endpoints import Endpoints, has_gateway
from devstack.postgres import host_of
from devstack.programs import GATEWAY
from devstack.state import State
from optaic.rules.realtime import websocket_url

_ADMISSION = {
    "development": "OPTAIC_AUTH=development: everybody on this machine is administrator, with the token `development` or none",
    "tokens": "OPTAIC_AUTH=tokens: only whoever has a token; make one with `optaic admin token create`",
    "oidc": "OPTAIC_AUTH=oidc: only whoever has a token of OPTAIC_OIDC_ISSUERS, or one of `optaic admin token create`",
}


async def read_status(state: State) -> dict[str, Any]:
    """Read the phase, the supervisor, the endpoints, and for each process its pid, its log and whether it answers."""
    supervisor = state.supervisor()
    endpoints = Endpoints.load(state)
    report: dict[str, Any] = {
        "phase": supervisor["phase"] if supervisor else "stopped",
        "pid": supervisor["pid"] if supervisor else None,
        "seconds": supervisor.get("seconds", {}) if supervisor else {},
        "state": str(state.root),
        "processes": {},
        "endpoints": asdict(endpoints) if endpoints else {},
    }
    if supervisor is None or endpoints is None:
        return report
    answers = {
        "postgres": checks.postgres_accepts(endpoints.postgres_admin),
        "prefect": _http_answers(endpoints, endpoints.prefect_ui, "/api/health"),
        "mlflow": _http_answers(endpoints, endpoints.mlflow, "/health"),
        **{f"{name}-service": checks.grpc_serves(*endpoints.probe(name)) for name in SERVICES},
    }
    if endpoints.nats_monitor:
        answers["nats"] = checks.http_answers(endpoints.nats_monitor.partition("//")[2], "/healthz")
    if endpoints.gateway:
        answers[GATEWAY] = _http_answers(endpoints, endpoints.gateway, "/healthz")
    if endpoints.centrifugo:
        answers["centrifugo"] = _http_answers(endpoints, endpoints.centrifugo, "/health")
    if endpoints.s3_endpoint:
        answers[seaweedfs.NAME] = _http_answers(endpoints, endpoints.s3_endpoint, seaweedfs.HEALTH)
    answered = dict(zip(answers, await asyncio.gather(*answers.values()), strict=True))
    records = await asyncio.to_thread(_living, state)
    interventions = state.interventions()
    for name in sorted({*answered, *records}):
        report["processes"][name] = {
            "pid": records.get(name),
            "answers": answered.get(name, name in records),
            "log": str(state.logs / f"{name}.log"),
            "intervention": interventions.get(name, ""),
        }
    return report


async def _http_answers(endpoints: Endpoints, url: str, path: str) -> bool:
    parts = urlsplit(url)
    tls = None
    if parts.scheme == "https":
        tls = await asyncio.to_thread(ssl.create_default_context, cafile=endpoints.https_ca or None)
    return await checks.http_answers(parts.netloc, f"{parts.path}{path}", tls)


def _living(state: State) -> dict[str, int]:
    known = leftovers.recorded(state.root)
    starts = {name: leftovers.identify(pid) for name, (pid, _) in known.items()}
    return {
        name: pid
        for name, (pid, start) in known.items()
        if (living := starts[name]) is not None and leftovers.is_same(living, start)
    }


def describe(endpoints: Endpoints, state: State) -> str:
    """Return every URL, and what to do first with each."""
    host = host_of(endpoints.nats)
    lines = [
        *_gateway(endpoints),
        f"gRPC, {_encryption(endpoints)}; {_ADMISSION[endpoints.auth]}",
        *(f"  {name:<9} {getattr(endpoints, name)}" for name in SERVICES),
        "Prefect",
        f"  UI        {endpoints.prefect_ui}",
        f"  API       {endpoints.prefect_api}",
        *_logged_in(endpoints.prefect_login),
        "MLflow, a little later than the rest",
        f"  UI, API   {endpoints.mlflow}",
        *_logged_in(endpoints.mlflow_login),
        "Evidently",
        f"  workspace {endpoints.evidently_workspace}",
        f"  UI        {Path(sys.executable).with_name('evidently')} ui --workspace {endpoints.evidently_workspace}",
        "NATS, read-only logins; each reads the events of one tenant",
        f"  server    {urlsplit(endpoints.nats).scheme}://{host}",
        *_login(endpoints),
        *(f"  {tenant:<9} {url}" for tenant, url in list(endpoints.nats_subscribers.items())[1:]),
        *_live_messages(endpoints),
        *_object_store(endpoints),
        "Files",
        f"  state     {state.root}",
        f"  logs      {state.logs}",
        f"  logins    {state.root / 'stack.json'} (yours alone)",
        "Use it",
        f"  {Path(sys.executable).with_name('optaic')} instance list",
        f"  nats --server {endpoints.nats_subscriber} {_files(endpoints)}subscribe 'optaic.>'",
    ]
    return "\n".join(lines)


def _gateway(endpoints: Endpoints) -> list[str]:
    title = "HTTP, for browsers and curl (docs/gateway.md)"
    if endpoints.gateway:
        console = [] if endpoints.auth != "development" else [f"  console   {endpoints.gateway}/console/"]
        return [title, *console, f"  gateway   {endpoints.gateway}"]
    if not has_gateway():
        return [
            title,
            "  gateway   not started: its extra is not installed; run: pip install 'optaic[gateway]'",
        ]
    return []  # OPTAIC_GATEWAY=false


def _live_messages(endpoints: Endpoints) -> list[str]:
    if not endpoints.centrifugo:
        return []
    return ["Centrifugo, live messages", f"  WebSocket {websocket_url(endpoints.centrifugo)}"]


def _object_store(endpoints: Endpoints) -> list[str]:
    if not endpoints.s3_endpoint:
        return []
    return [
        "SeaweedFS, all data",
        f"  S3        {endpoints.s3_endpoint}",
        f"  data      {endpoints.data_root}",
    ]


def _logged_in(login: str) -> list[str]:
    return [f"  login     {Path(sys.executable).with_name('optaic')} dev logins prints it"] if login else []


def describe_logins(endpoints: Endpoints) -> str:
    """Return users and passwords of the stack's own Prefect and MLflow, for their pages and for their own programs."""
    tools = (
        ("Prefect", endpoints.prefect_ui, endpoints.prefect_login),
        ("MLflow", endpoints.mlflow, endpoints.mlflow_login),
    )
    lines: list[str] = []
    for name, url, login in tools:
        user, _, password = login.partition(":")
        lines += [name, f"  page      {url}"]
        lines += (
            [f"  user      {user}", f"  password  {password}"]
            if login
            else ["  login     that of your own server"]
        )
    if endpoints.prefect_login:
        lines += ["For Prefect's command line and client"]
        lines += [f"  export PREFECT_API_URL={endpoints.prefect_api}"]
        lines += [f"  export PREFECT_API_AUTH_STRING={endpoints.prefect_login}"]
    if endpoints.mlflow_login:
        user, _, password = endpoints.mlflow_login.partition(":")
        lines += ["For MLflow's command line and client"]
        lines += [f"  export MLFLOW_TRACKING_URI={endpoints.mlflow}"]
        lines += [f"  export MLFLOW_TRACKING_USERNAME={user} MLFLOW_TRACKING_PASSWORD={password}"]
    return "\n".join(lines)


def _encryption(endpoints: Endpoints) -> str:
    if not endpoints.certificates:
        return "plaintext"
    return f"TLS with the certificates of {endpoints.certificates}, of which a client shows client.pem"


def _login(endpoints: Endpoints) -> list[str]:
    if endpoints.certificates:
        return [f"  login     the certificates subscriber-<tenant>.pem of {endpoints.certificates}"]
    return [
        f"  user      {endpoints.nats_subscriber_user}",
        f"  password  {endpoints.nats_subscriber_password}",
    ]


def _files(endpoints: Endpoints) -> str:
    """Return the options by which the command line of NATS shows the certificate of the first tenant's subscribers."""
    if not endpoints.certificates:
        return ""
    folder = Path(endpoints.certificates)
    holder = folder / f"subscriber-{next(iter(endpoints.nats_subscribers), 'default')}"
    return f"--tlsca {folder / 'ca.pem'} --tlscert {holder}.pem --tlskey {holder}.key "
