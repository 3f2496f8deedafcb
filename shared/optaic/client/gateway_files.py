"""Read from a gateway over HTTP: files and tables of runs whose data is out of reach, and whether it is ready; blocks."""

from __future__ import annotations

import contextlib
import http.client
import json
import re
from collections.abc import Iterator, Mapping
from datetime import datetime
from email.utils import parsedate_to_datetime
from typing import Any
from urllib.parse import quote, urlencode, urlsplit

import grpc

from optaic import errors
from optaic.client.certificates import Certificates, leaves_in_plaintext

_OK = 200
_ARROW = "application/vnd.apache.arrow.stream"
_PAGE_ROWS = 10_000
_HOST = re.compile(r"[^\s\x00-\x1f\x7f]+")


def fetch_artifact(
    gateway: str, token: str, run_id: str, name: str, timeout: float, certificates: Certificates
) -> bytes:
    """Return a file that a run has written; no redirection is followed, because the token would go with it.

    Raises:
        OptaicError: The gateway or run-service refused, or the gateway did not answer.
        FailedPreconditionError: PLAINTEXT_REFUSED: the token would leave this machine without TLS. CERTIFICATE_UNREADABLE.
    """
    headers = {"Authorization": f"Bearer {token}"} if token else {}
    path = f"/runs/{run_id}/artifacts/{quote(name)}"
    answer, content = _get(gateway, path, headers, timeout, certificates)
    if answer.status == _OK:
        return content
    raise _refusal(gateway, answer.status, content)


def fetch_rows(
    gateway: str,
    token: str,
    run_id: str,
    wanted: Mapping[str, Any],
    timeout: float,
    certificates: Certificates,
) -> Iterator[bytes]:
    """Yield the pages of the table that a run has written, each a stream of Arrow; raises as `fetch_artifact`.

    Args:
        gateway: its URL.
        token: the caller's.
        run_id: the run.
        wanted: columns, entities, start and end; None selects everything.
        timeout: seconds for one page.
        certificates: those of this connection.
    """
    given = {
        name: json.dumps(value) if isinstance(value, list) else str(value)
        for name, value in wanted.items()
        if value is not None
    }
    headers = {"Accept": _ARROW, **({"Authorization": f"Bearer {token}"} if token else {})}
    following: str | None = ""
    while following is not None:
        query = {**given, "page_size": _PAGE_ROWS, **({"page_token": following} if following else {})}
        path = f"/data/{run_id}?{urlencode(query)}"
        answer, content = _get(gateway, path, headers, timeout, certificates)
        if answer.status != _OK:
            raise _refusal(gateway, answer.status, content)
        yield content
        following = answer.headers.get("Optaic-Next-Page-Token")


def fetch_readiness(
    gateway: str, timeout: float, certificates: Certificates
) -> tuple[dict[str, bool], datetime | None]:
    """Return which services the gateway reaches, and the time of its machine if it tells it; no token is sent.

    Raises:
        UnavailableError: The gateway did not answer, or what answers is no gateway.
        FailedPreconditionError: PLAINTEXT_REFUSED: the connection would leave this machine without TLS. CERTIFICATE_UNREADABLE.
    """
    answer, content = _get(gateway, "/readyz", {}, timeout, certificates)
    try:
        reached = {str(name): bool(value) for name, value in json.loads(content).items()}
    except (ValueError, AttributeError):
        raise _refusal(gateway, answer.status, b"") from None
    with contextlib.suppress(ValueError):
        return reached, parsedate_to_datetime(answer.headers.get("Date") or "")
    return reached, None


def _get(
    gateway: str, path: str, headers: Mapping[str, str], timeout: float, certificates: Certificates
) -> tuple[http.client.HTTPResponse, bytes]:
    try:
        parts = urlsplit(gateway)
        address = f"{parts.hostname}:{parts.port or 443}"
    except ValueError:
        raise _no_url(gateway) from None
    if parts.scheme not in {"http", "https"} or not _HOST.fullmatch(parts.hostname or ""):
        raise _no_url(gateway)
    if parts.scheme != "https" and leaves_in_plaintext(address):
        raise errors.FailedPreconditionError(
            grpc.StatusCode.FAILED_PRECONDITION,
            "PLAINTEXT_REFUSED",
            f"the connection to {gateway} would leave this machine without TLS: use an address that begins with https://",
        )
    connection = (
        http.client.HTTPSConnection(parts.netloc, timeout=timeout, context=certificates.https_context())
        if parts.scheme == "https"
        else http.client.HTTPConnection(parts.netloc, timeout=timeout)
    )
    try:
        connection.request("GET", f"{parts.path.rstrip('/')}{path}", headers=dict(headers))
        answer = connection.getresponse()
        return answer, answer.read()
    except (OSError, http.client.HTTPException) as error:
        raise errors.UnavailableError(
            grpc.StatusCode.UNAVAILABLE,
            "GATEWAY_UNAVAILABLE",
            f"the gateway at {gateway} did not send all of its answer ({error!r}); retry, or set OPTAIC_GATEWAY_URL to one that answers",
        ) from None
    finally:
        connection.close()


def _no_url(gateway: str) -> errors.OptaicError:
    """Return the error for what is no address of a gateway."""
    message = f"{gateway!r} is no address of a gateway; set OPTAIC_GATEWAY_URL to one such as https://optaic.example.com"
    return errors.make_error(grpc.StatusCode.UNAVAILABLE.value[0], "GATEWAY_UNAVAILABLE", message, [], [])


def _refusal(gateway: str, status: int, content: bytes) -> errors.OptaicError:
    """Return the error that the body of an answer describes."""
    try:
        body = json.loads(content)
        code = grpc.StatusCode[body["code"].upper()]
        reason = body["details"][0]["debug"]["reason"]
        message = str(body["message"])
    except (ValueError, KeyError, IndexError, TypeError, AttributeError):
        code, reason = grpc.StatusCode.UNAVAILABLE, "GATEWAY_UNAVAILABLE"
        message = (
            f"what answers at {gateway} is no gateway: it sent the status {status}; check OPTAIC_GATEWAY_URL"
        )
    return errors.make_error(code.value[0], reason, message, [], [])
