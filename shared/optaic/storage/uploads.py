"""List and abort uploads in parts that nobody has completed: an object store keeps what was sent, and no listing of objects shows it.

obstore offers neither, so this asks the server itself, by S3's own protocol.
"""

from __future__ import annotations

import hashlib
import hmac
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from urllib.parse import quote, unquote, urlsplit
from xml.etree import ElementTree as ET

from optaic.storage import access
from optaic.storage.errors import StorageUnavailableError

_EMPTY = hashlib.sha256(b"").hexdigest()
_LONGEST_ANSWER = 16 * 1024 * 1024
_GONE = 404


@dataclass(frozen=True)
class Upload:
    """An upload in parts that was begun and not completed."""

    uri: str  # of the object that it would be
    upload_id: str
    begun: datetime


def list_uploads(uri: str) -> Iterator[Upload]:
    """Yield the uploads in parts to objects below a folder.

    Raises:
        StorageUnavailableError: the store does not answer, or refuses, or this process has no access key to ask with.
    """
    parts = urlsplit(uri)
    folder = f"{parts.path.strip('/')}/"
    wanted = {"uploads": "", "prefix": folder, "encoding-type": "url"}
    markers: dict[str, str] = {}
    while True:
        found = _ask("GET", parts.netloc, "", {**wanted, **markers})
        answer = ET.fromstring(found)  # noqa: S314 - of our own store; expat limits what entities expand to
        for element in answer.iter():
            element.tag = element.tag.rpartition("}")[2]  # each server has a namespace of its own, or none
        for each in answer.iterfind("Upload"):
            key = unquote(each.findtext("Key", ""))
            if not key.startswith(folder):
                continue  # a server that does not know prefixes
            begun = datetime.fromisoformat(each.findtext("Initiated", ""))
            place = f"{parts.scheme}://{parts.netloc}/{key}"
            yield Upload(place, each.findtext("UploadId", ""), begun.astimezone(UTC))
        if answer.findtext("IsTruncated") != "true":
            return
        named = {"key-marker": "NextKeyMarker", "upload-id-marker": "NextUploadIdMarker"}
        following = {name: unquote(answer.findtext(tag, "")) for name, tag in named.items()}
        if following == markers:
            raise StorageUnavailableError(f"{uri}: the list of uploads does not end")
        markers = following


def abort_upload(upload: Upload) -> None:
    """Have the store forget what an upload has sent; nothing is done where it is gone or completed.

    Raises:
        StorageUnavailableError: the store does not answer, or refuses.
    """
    parts = urlsplit(upload.uri)
    _ask("DELETE", parts.netloc, parts.path.strip("/"), {"uploadId": upload.upload_id})


def _ask(method: str, bucket: str, key: str, query: Mapping[str, str]) -> bytes:
    """Return what the server answers; nothing where it knows no such thing."""
    given = access.current()
    if not (given.access_key_id and given.secret_access_key):
        raise StorageUnavailableError(
            "uploads in parts can only be asked for with OPTAIC_S3_ACCESS_KEY_ID and its secret; without these have the server end "
            "them (a lifecycle rule AbortIncompleteMultipartUpload)"
        )
    endpoint = given.endpoint or f"https://s3.{given.options.get('aws_region', 'us-east-1')}.amazonaws.com"
    parts = urlsplit(endpoint)
    host = parts.netloc if given.is_path_style else f"{bucket}.{parts.netloc}"
    path = "/".join(filter(None, [parts.path.rstrip("/"), bucket if given.is_path_style else "", key]))
    path = quote(f"/{path.lstrip('/')}")
    text = "&".join(
        f"{quote(name, safe='')}={quote(value, safe='')}" for name, value in sorted(query.items())
    )
    request = urllib.request.Request(  # noqa: S310 - the endpoint that is configured
        f"{parts.scheme}://{host}{path}?{text}",
        method=method,
        headers=_sign(given, method, host, path, text),
    )
    direct = urllib.request.ProxyHandler({}) if parts.hostname in {"127.0.0.1", "localhost"} else None
    opener = urllib.request.build_opener(*([direct] if direct else []))
    try:
        with opener.open(request, timeout=given.timeout_seconds) as answer:
            return bytes(answer.read(_LONGEST_ANSWER))
    except urllib.error.HTTPError as error:
        with error:
            if error.code == _GONE:
                return b"<Gone/>"
            raise StorageUnavailableError(
                f"s3://{bucket}/{key or query.get('prefix', '')}: uploads in parts: the server answers {error.code}"
            ) from None
    except OSError as error:
        raise StorageUnavailableError(f"{endpoint}: uploads in parts: {error}") from None


def _sign(given: access.Access, method: str, host: str, path: str, query: str) -> dict[str, str]:
    """Return the headers of a request without content, signed as AWS says (Signature Version 4)."""
    now = datetime.now(UTC)
    day, time = f"{now:%Y%m%d}", f"{now:%Y%m%dT%H%M%SZ}"
    region = given.options.get("aws_region", "us-east-1")
    headers = {"host": host, "x-amz-content-sha256": _EMPTY, "x-amz-date": time}
    if given.session_token:
        headers["x-amz-security-token"] = given.session_token
    names = ";".join(sorted(headers))
    listed = "".join(f"{name}:{headers[name]}\n" for name in sorted(headers))
    canonical = f"{method}\n{path}\n{query}\n{listed}\n{names}\n{_EMPTY}"
    scope = f"{day}/{region}/s3/aws4_request"
    digest = hashlib.sha256(canonical.encode()).hexdigest()
    key = f"AWS4{given.secret_access_key}".encode()
    for word in (day, region, "s3", "aws4_request"):
        key = hmac.digest(key, word.encode(), "sha256")
    signed = f"AWS4-HMAC-SHA256\n{time}\n{scope}\n{digest}".encode()
    signature = hmac.digest(key, signed, "sha256").hex()
    authorization = f"AWS4-HMAC-SHA256 Credential={given.access_key_id}/{scope}, SignedHeaders={names}, Signature={signature}"
    return {**headers, "authorization": authorization}
