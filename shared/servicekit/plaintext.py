"""Decide whether a URL leaves this machine without TLS."""

from __future__ import annotations

import ipaddress
import os
from urllib.parse import parse_qs, urlsplit

_ENCRYPTED = frozenset({"https", "tls", "wss"})
_ENCRYPTED_MODES = frozenset({"require", "verify-ca", "verify-full"})


def is_local_host(host: str) -> bool:
    """Return whether a host is this machine."""
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def leaves_in_plaintext(url: str) -> bool:
    """Return whether a connection to a URL may leave this machine without TLS; PostgreSQL says so in `sslmode`."""
    parts = urlsplit(url)
    scheme = parts.scheme.partition("+")[0]
    if scheme in _ENCRYPTED:
        return False
    query = parse_qs(parts.query)
    places = [*query.get("host", []), *query.get("hostaddr", [])] or [parts.netloc.rpartition("@")[2]]
    hosts = [_without_port(each) for place in places for each in place.split(",")]
    if all(_stays(host) for host in hosts):
        return False
    if scheme in {"postgresql", "postgres"}:
        modes = query.get("sslmode") or [os.environ.get("PGSSLMODE", "")]
        return modes[-1] not in _ENCRYPTED_MODES
    return True


def _stays(host: str) -> bool:
    """Return whether a host is this machine; PostgreSQL takes no host, or a path, as its socket."""
    return not host or host.startswith(("/", "%2F", "%2f")) or is_local_host(host)


def _without_port(place: str) -> str:
    return place[1:].partition("]")[0] if place.startswith("[") else place.partition(":")[0]
