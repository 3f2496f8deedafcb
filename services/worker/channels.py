"""The worker's connections to services."""

from __future__ import annotations

from servicekit import client
from worker.config import Settings


def connect(settings: Settings, address: str) -> client.Channel:
    """Return a channel to a service, which sends the worker's token and, over TLS, shows its certificate.

    Raises:
        ValueError: The connection would leave this machine without TLS.
        OSError: A file of certificates cannot be read.
    """
    return client.connect(
        address, token_source=lambda: settings.executor_token, tls=settings.client_tls(address)
    )
