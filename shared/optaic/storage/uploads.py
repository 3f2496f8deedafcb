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
from http.client import HTTPException
from urllib.parse import quote, unquote_plus, urlsplit
from xml.etree import ElementTree as ET

from optaic.storage import access
from optaic.storage.errors import StorageUnavailableError
from optaic.storage.remote import split

_EMPTY = hashlib.sha256(b"").hexdigest()
_LONGEST_ANSWER = 16 * 1024 * 1024
_GONE = 404
_LIST = "ListMultipartUploadsResult"


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
    scheme, bucket, path = split(uri)
    folder = f"{path}/"
    wanted = {"uploads": "", "prefix": folder, "encoding-type": "url"}
    markers: dict[str, str] = {}
    while True:
        found = _ask("GET", bucket, "", {**wanted, **markers})
        try:
            page = _read_page(found)
        except (ET.ParseError, ValueError) as error:
            raise StorageUnavailableError(f"{uri}: the answer is no list of uploads: {error}") from None
        for key, upload_id, begun in page.uploads:
            if key.startswith(folder):  # a server that does not know prefixes answers all
                yield Upload(f"{scheme}://{bucket}/{key}", upload_id, begun)
        if not page.markers:
            return
        if page.markers == markers:
            raise StorageUnavailableError(f"{uri}: the list of uploads does not end")
        markers = page.markers


def abort_upload(upload: Upload) -> None:
    """Have the store forget what an upload has sent; nothing is done where it is gone or completed.

    Raises:
        StorageUnavailableError: the store does not answer, or refuses.
    """
    _, bucket, path = split(upload.uri)
    _ask("DELETE", bucket, path, {"uploadId": upload.upload_id})


@dataclass(frozen=True)
class _Page:
    uploads: tuple[tuple[str, str, datetime], ...]  # key, upload id, when it was begun
    markers: dict[str, str]  # of the next page; empty: there is none


def _read_page(content: bytes) -> _Page:
    """Return what a page of the list says.

    Raises:
        ET.ParseError: it is no XML.
        ValueError: an upload has no key, no id, or no time.
    """
    answer = ET.fromstring(content)  # noqa: S314 - of our own store; expat limits what entities expand to
    for element in answer.iter():
        element.tag = element.tag.rpartition("}")[2]  # each server has a namespace of its own, or none
    if answer.tag != _LIST:
        raise ValueError(f"it is a {answer.tag}")
    is_encoded = answer.findtext("EncodingType") == "url"

    def read(element: ET.Element, name: str) -> str:
        text = element.findtext(name, "")
        return unquote_plus(text) if is_encoded else text

    uploads = []
    for each in answer.iterfind("Upload"):
        key, upload_id = read(each, "Key"), each.findtext("UploadId", "")
        if not (key and upload_id):
            raise ValueError("an upload has no key, or no id")
        begun = datetime.fromisoformat(each.findtext("Initiated", ""))
        uploads.append((key, upload_id, begun.astimezone(UTC)))
    if answer.findtext("IsTruncated") != "true":
        return _Page(tuple(uploads), {})
    following = {"key-marker": read(answer, "NextKeyMarker")}
    return _Page(tuple(uploads), {**following, "upload-id-marker": answer.findtext("NextUploadIdMarker", "")})


def _ask(method: str, bucket: str, key: str, query: Mapping[str, str]) -> bytes:
    """Return what the server answers; nothing where it knows no longer what is to be deleted.

    Raises:
        StorageUnavailableError: it does not answer, refuses, or answers more than is read.
    """
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
            content = bytes(answer.read(_LONGEST_ANSWER + 1))
    except urllib.error.HTTPError as error:
        with error:
            if error.code == _GONE and method == "DELETE":
                return b""
            raise StorageUnavailableError(
                f"s3://{bucket}/{key or query.get('prefix', '')}: uploads in parts: the server answers {error.code}"
            ) from None
    except (OSError, HTTPException) as error:
        raise StorageUnavailableError(f"{endpoint}: uploads in parts: {error!r}") from None
    if len(content) > _LONGEST_ANSWER:
        raise StorageUnavailableError(
            f"{endpoint}: uploads in parts: the answer has more than {_LONGEST_ANSWER} bytes"
        )
    return content


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
