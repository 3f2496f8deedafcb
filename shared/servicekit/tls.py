"""TLS of servers and of channels to other services: certificates are read again when their files change, without a restart."""

from __future__ import annotations

import os
import re
import ssl
import threading
import time
from dataclasses import dataclass
from pathlib import Path

import grpc
import structlog

_LOOPBACK = re.compile(r"((ipv4:|dns:/*)?(127(\.\d{1,3}){3}|localhost)|(ipv6:)?\[::1\]):\d+|unix:.*")
_LOOK_SECONDS = 1.0
_log = structlog.get_logger(__name__)

Stamp = tuple[tuple[int, int], ...]


def is_loopback(address: str) -> bool:
    """Return whether an address of the form host:port reaches this machine only."""
    return _LOOPBACK.fullmatch(address) is not None


@dataclass(frozen=True)
class TlsFiles:
    """PEM files: an own certificate with its key, and the certificates of the authorities that are trusted."""

    certificate: Path | None = None
    key: Path | None = None
    ca: Path | None = None

    def stamp(self) -> Stamp:
        """Return what changes when a file is replaced.

        Raises:
            OSError: A file cannot be read.
        """
        paths = [path for path in (self.certificate, self.key, self.ca) if path is not None]
        return tuple((found.st_mtime_ns, found.st_ino) for found in map(os.stat, paths))

    def channel_credentials(self) -> grpc.ChannelCredentials:
        """Return the credentials of a client.

        Raises:
            OSError: A file cannot be read.
        """
        return grpc.ssl_channel_credentials(_read(self.ca), _read(self.key), _read(self.certificate))

    def context(self) -> ssl.SSLContext:
        """Return the context of a connection that is not gRPC's; without a CA those of the system count. It reads files.

        Raises:
            OSError: A file cannot be read, or holds something else.
        """
        context = ssl.create_default_context(cafile=self.ca)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        if self.certificate is not None:
            context.load_cert_chain(self.certificate, self.key)
        return context

    def server_configuration(self) -> grpc.ServerCertificateConfiguration:
        """Return the certificate of a server, and whose clients' certificates it accepts.

        Raises:
            OSError: A file cannot be read.
        """
        return grpc.ssl_server_certificate_configuration(
            [(_read(self.key), _read(self.certificate))], root_certificates=_read(self.ca)
        )


def _read(path: Path | None) -> bytes | None:
    return None if path is None else path.read_bytes()


def server_credentials(files: TlsFiles) -> grpc.ServerCredentials:
    """Return credentials whose files are looked at on new connections; with a CA, each client needs a certificate of it.

    Raises:
        OSError: A file cannot be read.
    """
    return grpc.dynamic_ssl_server_credentials(
        files.server_configuration(),
        _Rotation(files).fetch,
        require_client_authentication=files.ca is not None,
    )


class _Rotation:
    """Read the files again when they change; gRPC calls `fetch` in its own threads, on each new connection."""

    def __init__(self, files: TlsFiles) -> None:
        self._files = files
        self._stamp = files.stamp()
        self._lock = threading.Lock()

    def fetch(self) -> grpc.ServerCertificateConfiguration | None:
        """Return the new certificates, or None while the present ones stay in force."""
        with self._lock:
            try:
                stamp = self._files.stamp()
                if stamp == self._stamp:
                    return None
                configuration = self._files.server_configuration()
            except OSError as error:
                _log.error(
                    "certificates are not read again; the earlier ones stay in force", error=str(error)
                )
                return None
            self._stamp = stamp
            _log.info("certificates are read again")
            return configuration


class Watch:
    """The moment when files change; they are looked at at most once a second."""

    def __init__(self, files: TlsFiles) -> None:
        self._files = files
        self._stamp = files.stamp()
        self._looked = time.monotonic()

    def has_changed(self) -> bool:
        """Return whether a file was replaced since the last change; unreadable files count as unchanged."""
        if time.monotonic() - self._looked < _LOOK_SECONDS:
            return False
        self._looked = time.monotonic()
        try:
            stamp = self._files.stamp()
        except OSError:
            return False
        changed, self._stamp = stamp != self._stamp, stamp
        return changed
