"""The policy of a worker's tenant: which sources may be read; it opens and resolves nothing."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from ipaddress import ip_address

from optaic.rules.sources import SCHEMES

DIALECTS = ("postgresql", "mysql", "mariadb", "sqlite")
DEFINITION = "definition"  # as the scheme of a destination: the code of a definition
_HOST = re.compile(r"[a-z0-9_]([a-z0-9_.-]*[a-z0-9_])?")
_LOCAL_ENGINES = frozenset({"duckdb", "access"})  # a query of theirs opens any file


@dataclass(frozen=True)
class Destination:
    """A destination of a source's request."""

    scheme: str
    host: str = ""
    port: int | None = None  # None: the scheme's own

    def __str__(self) -> str:
        """Return it as a user writes it in OPTAIC_SOURCE_SECRETS."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{self.scheme}://{host}" + (f":{self.port}" if self.port else "")


@dataclass(frozen=True)
class SourcePolicy:
    """The sources that the pipelines `file` and `sql` may read. A policy without values allows no local file and no internal host."""

    schemes: Sequence[str] = ("file", "https", "s3")
    roots: Sequence[str] = ()
    excluded: Sequence[str] = ()
    hosts: Sequence[str] = ("*",)
    private_hosts: Sequence[str] = ()
    http_hosts: Sequence[str] = ()
    dialects: Sequence[str] = DIALECTS
    secrets: Mapping[str, Sequence[str]] = field(default_factory=dict)
    max_bytes: int = 4 * 1024**3
    connect_seconds: float = 10.0
    total_seconds: float = 3600.0


def normalize_host(host: str) -> str:
    """Return a host in the one spelling that patterns are compared with.

    Raises:
        ValueError: it is no name and no address.
    """
    bare = host.strip("[]").rstrip(".").lower()
    try:
        return str(ip_address(bare))
    except ValueError:
        pass
    try:
        name = bare if bare.isascii() else bare.encode("idna").decode("ascii").lower()
    except UnicodeError:
        name = ""
    if len(name) > 253 or not _HOST.fullmatch(name):  # noqa: PLR2004 - the longest name that DNS has
        raise ValueError("it is no name of a host")
    return name


def matches_host(patterns: Sequence[str], host: str, port: int | None) -> bool:
    """Return whether a host is one of `name`, `*.name`, `*`, each with or without a port."""
    return any(_matches(pattern, host, port) for pattern in patterns)


def _matches(pattern: str, host: str, port: int | None) -> bool:
    name, wanted = _split_port(pattern)
    if wanted is not None and wanted != port:
        return False
    if name == "*":
        return True
    if name.startswith("*."):
        return host.endswith(f".{normalize_host(name[2:])}")
    return normalize_host(name) == host


def _split_port(pattern: str) -> tuple[str, int | None]:
    found = re.fullmatch(r"(\[[^\]]+\]|[^:\[\]]+)(?::(\d{1,5}))?", pattern)
    if found is None:  # an IPv6 address without brackets
        return pattern, None
    return found[1].strip("[]"), int(found[2]) if found[2] else None


def check_host_pattern(pattern: str, *, by_name: bool) -> str:
    """Return the pattern.

    Raises:
        ValueError: it is malformed, or it allows all hosts where each has to be named.
    """
    name, _ = _split_port(pattern)
    if name == "*" and by_name:
        raise ValueError(f"{pattern!r} would allow every host; name each host, or use *.its.domain")
    if name != "*":
        try:
            normalize_host(name.removeprefix("*."))
        except ValueError:
            raise ValueError(f"{pattern!r} is not a host, host:port or *.domain") from None
    return pattern


def check_scheme(scheme: str) -> str:
    """Return the scheme.

    Raises:
        ValueError: no source has it.
    """
    if scheme not in SCHEMES:
        raise ValueError(f"{scheme!r} is not one of {', '.join(sorted(SCHEMES))}")
    return scheme


def check_dialect(dialect: str) -> str:
    """Return the dialect.

    Raises:
        ValueError: its queries could open any file of the worker.
    """
    if dialect in _LOCAL_ENGINES:
        raise ValueError(f"{dialect!r} cannot be allowed: its queries can open every file of the worker")
    return dialect


def check_binding(destination: str) -> str:
    """Return one destination of a secret.

    Raises:
        ValueError: it is malformed.
    """
    scheme, separator, rest = destination.partition(
        ":" if destination.startswith(f"{DEFINITION}:") else "://"
    )
    is_local = scheme in {"file", "sqlite"} and not rest
    if not (separator and scheme) or not (rest or is_local) or "/" in rest or "@" in rest:
        raise ValueError(
            f"{destination!r} is not a destination like https://host, postgresql://host:5432, file:// or {DEFINITION}:name"
        )
    if scheme != DEFINITION and rest:
        check_host_pattern(rest, by_name=True)
    return destination


def is_bound(bindings: Sequence[str], destination: Destination) -> bool:
    """Return whether a secret with these bindings may be sent to a destination; no port is the scheme's own port."""
    for binding in bindings:
        scheme, separator, rest = binding.partition("://")
        if not separator or scheme != destination.scheme or bool(rest) != bool(destination.host):
            continue
        if not rest:
            return True
        name, port = _split_port(rest)
        if port == destination.port and _matches(name, destination.host, None):
            return True
    return False
