"""Sign the request for an object of S3, so that it can be fetched like any other file; it sends nothing."""

from __future__ import annotations

import datetime as dt
import hashlib
import hmac
from collections.abc import Mapping
from dataclasses import dataclass, field
from urllib.parse import quote

from worker.sources.policy import Destination

_EMPTY = hashlib.sha256(b"").hexdigest()
REGION = "us-east-1"


@dataclass(frozen=True)
class Credentials:
    """The key of a reader."""

    key: str
    secret: str = field(repr=False)
    token: str = field(default="", repr=False)


def path_of(key: str) -> str:
    """Return the path of an object, as its signature takes it."""
    return quote(f"/{key}", safe="/-._~")


def sign(
    place: Destination,
    path: str,
    region: str,
    credentials: Credentials,
    now: dt.datetime,
    method: str = "GET",
) -> Mapping[str, str]:
    """Return the headers of a request for a path (Signature Version 4)."""
    moment, day = now.strftime("%Y%m%dT%H%M%SZ"), now.strftime("%Y%m%d")
    host = f"[{place.host}]" if ":" in place.host else place.host
    signed = {
        "host": f"{host}:{place.port}" if place.port else host,
        "x-amz-content-sha256": _EMPTY,
        "x-amz-date": moment,
        **({"x-amz-security-token": credentials.token} if credentials.token else {}),
    }
    names = ";".join(signed)
    lines = "".join(f"{name}:{value}\n" for name, value in signed.items())
    request = f"{method}\n{path}\n\n{lines}\n{names}\n{_EMPTY}"
    scope = f"{day}/{region}/s3/aws4_request"
    text = "\n".join(("AWS4-HMAC-SHA256", moment, scope, hashlib.sha256(request.encode()).hexdigest()))
    key = f"AWS4{credentials.secret}".encode()
    for part in (day, region, "s3", "aws4_request"):
        key = hmac.new(key, part.encode(), hashlib.sha256).digest()
    signature = hmac.new(key, text.encode(), hashlib.sha256).hexdigest()
    authorization = (
        f"AWS4-HMAC-SHA256 Credential={credentials.key}/{scope}, SignedHeaders={names}, Signature={signature}"
    )
    return {
        **{name: value for name, value in signed.items() if name != "host"},
        "Authorization": authorization,
    }
