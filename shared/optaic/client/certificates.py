"""TLS of the client: the files that the environment names, read again when they change."""

from __future__ import annotations

import os
import re
import ssl
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

import grpc

from optaic.client.discovery import find_certificates
from optaic.errors import FailedPreconditionError

_LOOPBACK = re.compile(r"((ipv4:|dns:/*)?(127(\.\d{1,3}){3}|localhost)|(ipv6:)?\[::1\]):\d+|unix:.*")
_LOOK_SECONDS = 1.0


def leaves_in_plaintext(address: str) -> bool:
    """Return whether a connection without TLS to host:port would leave this machine, and may not."""
    return not _allows_plaintext() and _LOOPBACK.fullmatch(address) is None


def _allows_plaintext() -> bool:
    return os.environ.get("OPTAIC_INSECURE_PLAINTEXT", "").lower() in {"1", "true", "yes", "on"}


@dataclass
class Certificates:
    """The CA of the services, and where services ask for it the client's own certificate with its key."""

    ca: Path | None = None
    certificate: Path | None = None
    key: Path | None = None
    allows_plaintext: bool = False
    _stamp: Any = field(default=None, init=False)
    _looked: float = field(default=0.0, init=False)

    @classmethod
    def find(cls, addresses: Mapping[str, str]) -> Self:
        """Return the files for services at some addresses, and what OPTAIC_INSECURE_PLAINTEXT says."""
        found = find_certificates(addresses)
        ca, certificate, key = (
            Path(text) if (text := found.get(name)) else None for name in ("ca", "certificate", "key")
        )
        return cls(ca, certificate, key, _allows_plaintext())

    def open_channel(self, address: str, options: Sequence[tuple[str, Any]]) -> grpc.aio.Channel:
        """Return a channel that connects on first use.

        Raises:
            FailedPreconditionError: The connection would leave this machine without TLS, or a file cannot be read.
        """
        if self.ca is None:
            if not self.allows_plaintext and _LOOPBACK.fullmatch(address) is None:
                raise _refusal(
                    "PLAINTEXT_REFUSED",
                    f"the connection to {address} would leave this machine without TLS: set OPTAIC_TLS_CA to the file of the "
                    "services' CA, or OPTAIC_INSECURE_PLAINTEXT=true if the network encrypts by itself",
                )
            return grpc.aio.insecure_channel(address, options=options)
        try:
            self._stamp, self._looked = self._read_stamp(), time.monotonic()
            ca, key, certificate = (
                path.read_bytes() if path else None for path in (self.ca, self.key, self.certificate)
            )
        except OSError as error:
            raise _unreadable(error) from error
        return grpc.aio.secure_channel(
            address, grpc.ssl_channel_credentials(ca, key, certificate), options=options
        )

    def https_context(self) -> ssl.SSLContext:
        """Return whose certificates a gateway may show, the services' CA or one that this machine knows, and the client's own.

        Raises:
            FailedPreconditionError: CERTIFICATE_UNREADABLE.
        """
        context = ssl.create_default_context()
        try:
            if self.ca is not None:
                context.load_verify_locations(self.ca)
            if self.certificate is not None:
                context.load_cert_chain(self.certificate, self.key)
        except OSError as error:
            raise _unreadable(error) from error
        return context

    def have_changed(self) -> bool:
        """Return whether a file was replaced since a channel was opened; it looks at most once a second."""
        if self._stamp is None or time.monotonic() - self._looked < _LOOK_SECONDS:
            return False
        self._looked = time.monotonic()
        try:
            stamp = self._read_stamp()
        except OSError:
            return False  # the files are being replaced; the present connections are good
        changed, self._stamp = stamp != self._stamp, stamp
        return bool(changed)

    def _read_stamp(self) -> list[tuple[int, int]]:
        paths = [path for path in (self.ca, self.certificate, self.key) if path is not None]
        return [(found.st_mtime_ns, found.st_ino) for found in map(os.stat, paths)]


def _unreadable(error: OSError) -> FailedPreconditionError:
    return _refusal(
        "CERTIFICATE_UNREADABLE", f"a file of OPTAIC_TLS_CA, _CERTIFICATE or _KEY cannot be read: {error}"
    )


def _refusal(reason: str, message: str) -> FailedPreconditionError:
    return FailedPreconditionError(grpc.StatusCode.FAILED_PRECONDITION, reason, message)
