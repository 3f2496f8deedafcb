"""Find the broker for the commands of operators, which use the services' code."""

from __future__ import annotations

from pathlib import Path

from devstack import nats
from devstack.config import Settings
from devstack.endpoints import Endpoints, NoStackError
from devstack.state import State
from servicekit.settings import TlsSettings
from servicekit.tls import TlsFiles


def find_nats(settings: Settings, user: str) -> tuple[str, TlsFiles | None]:
    """Return the configured URL of NATS, or that of a login of the embedded server, with the files for TLS if it has it.

    Raises:
        NoStackError: Neither is there.
    """
    if settings.nats_url:
        given = TlsSettings()
        files = TlsFiles(given.tls_certificate, given.tls_key, given.tls_ca)
        return settings.nats_url, files if settings.nats_url.startswith("tls://") else None
    state = State(settings.root)
    endpoints = Endpoints.load(state)
    if endpoints is None:
        raise NoStackError(
            f"there is no stack in {state.root}: start it with `make up`, or set OPTAIC_NATS_URL"
        )
    if endpoints.certificates:
        folder, holder = Path(endpoints.certificates), user if user == nats.OPERATOR else f"{user}-service"
        return endpoints.nats, TlsFiles(folder / f"{holder}.pem", folder / f"{holder}.key", folder / "ca.pem")
    return endpoints.nats.replace("//", f"//{user}:{state.secrets()[f'nats_{user}']}@", 1), None
