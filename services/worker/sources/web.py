"""Fetch a file by http or https: to checked addresses only, with checked redirects, within bounds of size and time."""

from __future__ import annotations

import contextlib
import functools
import http.client
import socket
import ssl
import zlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Protocol
from urllib.parse import quote, urljoin, urlsplit

from optaic.plugins import InvalidConfig, SourceNotAllowed, SourceNotFound, SourceUnavailable, UnparsableData
from worker.sources.addresses import Resolve, check_host, dial
from worker.sources.content import too_large
from worker.sources.deadline import Deadline
from worker.sources.policy import Destination, SourcePolicy, matches_host, normalize_host

PORTS = {"http": 80, "https": 443}
_MOST_REDIRECTS = 5
_REDIRECTS = frozenset({301, 302, 303, 307, 308})
_ABSENT = frozenset({404, 410})
_CHUNK = 256 * 1024
_LONGEST_TOKEN = 1_000  # characters
_UNRESERVED = "/?#[]@!$&'()*+,;=:%-._~"


@dataclass(frozen=True)
class Target:
    """A request, as its parts: nothing of it is parsed again."""

    destination: Destination
    path: str  # with the query
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)
    shown: str = ""  # the host, as an error may call it
    method: str = "GET"

    @property
    def port(self) -> int:
        """The port that is connected."""
        return self.destination.port or PORTS[self.destination.scheme]


class Check(Protocol):
    """A check whether the secrets of a request may be sent to a destination; it raises an error if not."""

    def __call__(self, destination: Destination, shown: str) -> None:
        """Check one destination."""


def make_destination(scheme: str, host: str | None, port: int | None) -> Destination:
    """Return where a URL leads.

    Raises:
        InvalidConfig: its host is none.
    """
    if not host:
        raise InvalidConfig("url: names no host")
    try:
        return Destination(scheme, normalize_host(host), None if port == PORTS.get(scheme) else port)
    except ValueError:
        raise InvalidConfig("url: its host is not the name or address of a host") from None


def fetch(
    policy: SourcePolicy, target: Target, url: str, check: Check, *, by: Resolve | None = None
) -> bytes:
    """Return the body of a file.

    Args:
        policy: of the tenant.
        target: what is requested.
        url: the source, as an error may call it.
        check: of each destination, before anything is sent there.
        by: how names are resolved; without one, as the machine does.

    Raises:
        SourceNotAllowed: the policy allows the host, an address, a redirect or the size not.
        SourceNotFound: the server has no such file.
        SourceUnavailable: it does not answer in time, or with something else than the file.
    """
    with Deadline(policy.total_seconds) as deadline:
        for hop in range(_MOST_REDIRECTS + 1):
            try:
                answer = _request(policy, target, url, check, deadline, hop, by)
            except (OSError, http.client.HTTPException, zlib.error) as error:
                why = str(deadline) if deadline.is_over else _say(error)
                raise SourceUnavailable(f"{url} cannot be read: {why}") from None
            if isinstance(answer, bytes):
                return answer
            target = _follow(target, answer, hop + 1)
    raise SourceUnavailable(f"{url} cannot be read: it leads through more than {_MOST_REDIRECTS} redirects")


def fetch_token(
    policy: SourcePolicy, target: Target, url: str, check: Check, *, by: Resolve | None = None
) -> str:
    """Return what the server says of a file that is another after each change: its ETag, else its time and size.

    Empty if it says neither. `target` asks by HEAD; raises as `fetch`.
    """
    return fetch(policy, target, url, check, by=by).decode("ascii", "replace")


def _say(error: Exception) -> str:
    """Describe a failure without what the server said."""
    if isinstance(error, TimeoutError):
        return "the server did not answer in time"
    if isinstance(error, ssl.SSLCertVerificationError):
        return "the certificate of the server is not valid for it"
    if isinstance(error, ssl.SSLError):
        return "the server does not speak TLS as it should"
    if isinstance(error, OSError):
        return error.strerror or "the connection failed"
    return f"the server does not speak HTTP as it should ({type(error).__name__})"


def _request(
    policy: SourcePolicy,
    target: Target,
    url: str,
    check: Check,
    deadline: Deadline,
    hop: int,
    by: Resolve | None,
) -> bytes | str:
    """Return the body, or where the answer leads."""
    place = target.destination
    rule = f"url (redirect {hop})" if hop else "url"
    if place.scheme not in policy.schemes and not (place.scheme == "http" and policy.http_hosts):
        raise SourceNotAllowed(
            f"{rule}: the scheme {place.scheme} is not one that the worker reads ({', '.join(policy.schemes)}); add it to "
            "OPTAIC_SOURCE_SCHEMES, or for http the host to OPTAIC_SOURCE_HTTP_HOSTS"
        )
    if place.scheme == "http" and not matches_host(policy.http_hosts, place.host, target.port):
        raise SourceNotAllowed(
            f"{rule}: {target.shown} may be read by https only; for http add it to OPTAIC_SOURCE_HTTP_HOSTS"
        )
    check(place, target.shown)
    addresses = check_host(policy, place.host, target.port, field=rule, shown=target.shown, by=by)
    connection = dial(addresses, target.port, min(policy.connect_seconds, deadline.left))
    deadline.on_expiry(functools.partial(_shut, connection))
    with contextlib.closing(connection):
        connection.settimeout(deadline.left)
        if place.scheme == "https":
            context = ssl.create_default_context()
            connection = context.wrap_socket(
                connection, server_hostname=place.host, do_handshake_on_connect=False
            )
            deadline.on_expiry(functools.partial(_shut, connection))
            connection.do_handshake()
        with contextlib.closing(connection):
            return _exchange(connection, policy, target, url, deadline)


def _shut(connection: socket.socket) -> None:
    with contextlib.suppress(OSError):
        connection.shutdown(socket.SHUT_RDWR)


def _exchange(
    connection: socket.socket, policy: SourcePolicy, target: Target, url: str, deadline: Deadline
) -> bytes | str:
    speaker = http.client.HTTPConnection(target.destination.host, target.port)
    speaker.sock = connection
    with contextlib.closing(speaker):
        _ask(speaker, target)
        with contextlib.closing(speaker.getresponse()) as answer:
            if answer.status in _REDIRECTS and (location := answer.getheader("Location")):
                return location
            if answer.status in _ABSENT:
                raise SourceNotFound(
                    f"url: the file {url} does not exist: the server answers {answer.status}; correct url, or deliver the file"
                )
            if answer.status != http.client.OK:
                raise SourceUnavailable(f"{url} cannot be read: the server answers {answer.status}")
            if target.method == "HEAD":
                return _token_of(answer).encode("ascii", "replace")
            return _read_body(answer, policy.max_bytes, url, deadline)


def _token_of(answer: http.client.HTTPResponse) -> str:
    if tag := answer.getheader("ETag"):
        return f"etag {tag}"[:_LONGEST_TOKEN]
    modified, size = answer.getheader("Last-Modified"), answer.getheader("Content-Length")
    return f"modified {modified} size {size or 'unknown'}"[:_LONGEST_TOKEN] if modified else ""


def _ask(speaker: http.client.HTTPConnection, target: Target) -> None:
    place = target.destination
    named = f"[{place.host}]" if ":" in place.host else place.host
    speaker.putrequest(target.method, target.path, skip_host=True, skip_accept_encoding=True)
    headers = {
        "Host": f"{named}:{place.port}" if place.port else named,
        "Accept": "*/*",
        "Accept-Encoding": "identity",
        "Connection": "close",
        "User-Agent": "optaic",
        **target.headers,
    }
    for name, value in headers.items():
        speaker.putheader(name, value)
    speaker.endheaders()


def _read_body(answer: http.client.HTTPResponse, most: int, url: str, deadline: Deadline) -> bytes:
    encoding = (answer.getheader("Content-Encoding") or "identity").strip().lower()
    if encoding not in {"identity", "gzip", "x-gzip"}:
        raise SourceUnavailable(
            f"{url} cannot be read: the server sends it in a coding that was not asked for"
        )
    declared = answer.length
    if declared is not None and declared > most:
        raise too_large(url, most)
    unpacker = zlib.decompressobj(31) if encoding != "identity" else None
    body, received = bytearray(), 0
    while part := answer.read(_CHUNK):
        received += len(part)
        if unpacker is None:
            body += part
        else:
            body += unpacker.decompress(part, most + 1 - len(body))
        if max(len(body), received) > most:
            raise too_large(url, most)
    if deadline.is_over:
        raise TimeoutError
    if (declared is not None and received < declared) or (unpacker is not None and not unpacker.eof):
        raise UnparsableData(f"{url}: the connection ended before the file did")
    return bytes(body)


def _follow(target: Target, location: str, hop: int) -> Target:
    """Return the request to which a server redirects; to another place it takes no header along.

    Raises:
        SourceUnavailable: the server names no place that can be requested.
    """
    before = target.destination
    base = f"{before}{target.path}"
    try:
        parts = urlsplit(urljoin(base, quote(location, safe=_UNRESERVED)))
        port, host = parts.port, parts.hostname
        place = make_destination(parts.scheme.lower(), host, port)
    except (ValueError, InvalidConfig):
        raise SourceUnavailable(
            f"redirect {hop} of the server leads to no place that can be requested"
        ) from None
    if place.scheme not in PORTS or parts.username is not None:
        raise SourceNotAllowed(f"url (redirect {hop}): leads to something else than a file by http or https")
    path = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    headers = target.headers if place == before else {}
    return Target(
        place,
        path,
        headers,
        target.shown if place.host == before.host else f"the host of redirect {hop}",
        target.method,
    )
