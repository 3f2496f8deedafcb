"""Find the services: from arguments, the environment, or the state file of a running stack."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import grpc

from optaic.errors import UnavailableError
from optaic.rules.realtime import websocket_url

SERVICES = ("instance", "run", "lineage", "status")
_FILE = "stack.json"
_DEFAULT_STATE = ".state"
# The variable of each file, and its name in the folder that `optaic dev certs` writes.
_CERTIFICATES = {
    "ca": ("OPTAIC_TLS_CA", "ca.pem"),
    "certificate": ("OPTAIC_TLS_CERTIFICATE", "client.pem"),
    "key": ("OPTAIC_TLS_KEY", "client.key"),
}


def find_addresses(given: Mapping[str, str | None]) -> dict[str, str]:
    """Return the address of each service that is known, the nearest source first."""
    known = _state_endpoints()
    addresses = {}
    for service in SERVICES:
        address = (
            given.get(service) or os.environ.get(f"OPTAIC_{service.upper()}_ADDRESS") or known.get(service)
        )
        if address:
            addresses[service] = str(address)
    return addresses


def find_certificates(addresses: Mapping[str, str]) -> dict[str, str]:
    """Return the files of the CA and of the client's certificate and key: of the environment, or of a stack on this machine.

    Those of a stack count if all addresses are the stack's: another service has another CA.
    """
    given = {name: os.environ.get(variable, "") for name, (variable, _) in _CERTIFICATES.items()}
    if any(given.values()):
        return given
    known = _state_endpoints()
    folder = known.get("certificates")
    if not folder or not _are_of(known, addresses):
        return {}
    return {name: str(Path(str(folder)) / file) for name, (_, file) in _CERTIFICATES.items()}


def find_object_store(addresses: Mapping[str, str], uri: str) -> dict[str, str]:
    """Return the variables by which data of a stack on this machine is reached in the stack's own object store.

    None, where the environment says how data is reached, or where the data or the services are not the stack's.
    """
    if any(os.environ.get(f"OPTAIC_S3_{name}") for name in ("ENDPOINT", "ACCESS_KEY_ID")):
        return {}
    known = _state_endpoints()
    root = f"{known.get('s3_root') or known.get('data_root')}/"
    endpoint, logins = known.get("s3_endpoint"), known.get("s3_logins") or {}
    if not endpoint or not uri.startswith(root) or not _are_of(known, addresses):
        return {}
    access_key, _, secret = str(logins.get(uri.removeprefix(root).partition("/")[0], "")).partition(":")
    return {
        "OPTAIC_S3_ENDPOINT": str(endpoint),
        "OPTAIC_S3_ACCESS_KEY_ID": access_key,
        "OPTAIC_S3_SECRET_ACCESS_KEY": secret,
    }


def find_realtime_url(addresses: Mapping[str, str]) -> str:
    """Return the WebSocket of live messages: of the environment, or of a stack on this machine; empty if none is known."""
    if given := os.environ.get("OPTAIC_REALTIME_URL", ""):
        return given
    known = _state_endpoints()
    server = known.get("centrifugo")
    return websocket_url(str(server)) if server and _are_of(known, addresses) else ""


def find_gateway(addresses: Mapping[str, str]) -> str:
    """Return the URL of the gateway: of the environment, or of a stack on this machine; empty where none is known."""
    given = os.environ.get("OPTAIC_GATEWAY_URL", "")
    known = _state_endpoints() if not given else {}
    return given or (str(known.get("gateway") or "") if addresses and _are_of(known, addresses) else "")


def find_token(given: str | None) -> str:
    """Return the bearer token; empty where none is configured: a stack on this machine needs none."""
    return given if given is not None else os.environ.get("OPTAIC_TOKEN", "")


def find_tokens_file() -> Path | None:
    """Return the file of tokens that the services read: of the environment, or of a stack on this machine."""
    known = os.environ.get("OPTAIC_TOKENS_FILE") or _state_endpoints().get("tokens_file")
    return Path(str(known)) if known else None


def no_address(service: str) -> UnavailableError:
    """Return the error for a service whose address is unknown."""
    return UnavailableError(
        grpc.StatusCode.UNAVAILABLE,
        "NO_ADDRESS",
        f"the address of {service}-service is not known; pass {service}_address, set "
        f"OPTAIC_{service.upper()}_ADDRESS, or start a stack here with `optaic dev up`",
    )


def does_not_answer(service: str, address: str, problem: str) -> UnavailableError:
    """Return the error for a service that cannot be reached at its address."""
    return UnavailableError(
        grpc.StatusCode.UNAVAILABLE,
        "UNAVAILABLE",
        f"{service}-service at {address} does not answer ({problem}); start the stack (`optaic dev up`), or set "
        f"OPTAIC_{service.upper()}_ADDRESS to the address at which the service runs",
    )


def _are_of(known: Mapping[str, Any], addresses: Mapping[str, str]) -> bool:
    """Return whether all addresses are those of a stack."""
    return all(known.get(service) == address for service, address in addresses.items())


def find_source(service: str) -> str:
    """Return what says where a service is: the variable, or the state file of a stack; empty where nothing does."""
    variable = f"OPTAIC_{service.upper()}_ADDRESS"
    if os.environ.get(variable):
        return variable
    file, endpoints = _state_file()
    return str(file) if endpoints.get(service) else ""


def find_data_root(addresses: Mapping[str, str]) -> str:
    """Return where a stack on this machine keeps its data; empty where the services are not the stack's."""
    known = _state_endpoints()
    return str(known.get("data_root") or "") if addresses and _are_of(known, addresses) else ""


def find_state() -> Path | None:
    """Return the folder of the stack that was started here, or in a folder above; None if there was none."""
    file, _ = _state_file()
    return file.parent if file else None


def _state_endpoints() -> dict[str, Any]:
    return _state_file()[1]


def _state_file() -> tuple[Path | None, dict[str, Any]]:
    configured = os.environ.get("OPTAIC_STATE")
    folder = Path.cwd()
    candidates = (
        [Path(configured)] if configured else [at / _DEFAULT_STATE for at in (folder, *folder.parents)]
    )
    for candidate in candidates:
        try:
            content = json.loads((candidate / _FILE).read_text(encoding="utf-8"))
        except (OSError, ValueError):
            continue
        endpoints = content.get("endpoints") if isinstance(content, dict) else None
        if isinstance(endpoints, dict):
            return candidate / _FILE, endpoints
    return None, {}
