"""Read the file that a configuration names, by the policy: a local file, a file of the web or an object of S3."""

from __future__ import annotations

import base64
import datetime as dt
import os
import re
from collections.abc import Mapping
from contextlib import AbstractContextManager
from dataclasses import replace
from urllib.parse import quote, unquote, urlsplit

from optaic.plugins import InvalidConfig, SourceNotAllowed
from optaic.plugins.secrets import has_placeholder
from optaic.rules.sources import WEB, describe_options, find_strange_options, find_url_problem, scheme_of
from worker.sources import s3
from worker.sources.access import BoundSecrets, SourceAccess
from worker.sources.addresses import Resolve
from worker.sources.content import too_large, unpack
from worker.sources.files import OpenFile, open_file, read_bytes
from worker.sources.policy import Destination, SourcePolicy
from worker.sources.web import Target, fetch, fetch_token, make_destination

Options = Mapping[str, object]
_SAFE = "/?[]@!$&'()*+,;=:%-._~"
_BUCKET = re.compile(r"[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]")


def read_source(access: SourceAccess, url: str, options: Options, *, by: Resolve | None = None) -> bytes:
    """Return the content of a file.

    Args:
        access: what the run may read.
        url: of the file, as configured.
        options: `storage_options`, as configured.
        by: how names are resolved; without one, as the machine does.

    Raises:
        InvalidConfig: the URL or an option is malformed.
        SourceNotAllowed: the policy does not allow it.
        SourceNotFound: there is no such file.
        SourceUnavailable: it cannot be read.
    """
    scheme, full, given, secrets = _judge(access, url, options)
    policy = access.policy
    if scheme == "file":
        with _open_local(policy, full, url, secrets) as file:
            content = read_bytes(file, policy.max_bytes)
        if len(content) > policy.max_bytes:
            raise too_large(url, policy.max_bytes)
    else:
        content = fetch(policy, _make_target(scheme, full, given, secrets), url, secrets.check, by=by)
    return unpack(content, given.text("compression"), url, policy.max_bytes)


def probe_source(access: SourceAccess, url: str, options: Options, *, by: Resolve | None = None) -> str:
    """Return a token of a file that is another after each change, without reading the file: of a local file its size and time.

    Of a file of the web or of S3 it is the ETag, else time and size; empty if the server says neither. Takes and raises what
    `read_source` does.
    """
    scheme, full, given, secrets = _judge(access, url, options)
    if scheme == "file":
        with _open_local(access.policy, full, url, secrets) as file:
            found = os.fstat(file.descriptor)
        return f"size {found.st_size} time {found.st_mtime_ns}"
    target = _make_target(scheme, full, given, secrets, "HEAD")
    return fetch_token(access.policy, target, url, secrets.check, by=by)


def _judge(access: SourceAccess, url: str, options: Options) -> tuple[str, str, _Options, BoundSecrets]:
    """Return the scheme of a URL, the URL where a secret says all of it, the options, and the secrets to be filled in.

    Raises:
        SourceNotAllowed: the policy does not allow the scheme, or an option is unknown.
    """
    secrets, policy = BoundSecrets(access), access.policy
    full = secrets.fill(url, "url") if _is_unknown(url) else url  # then the secret says all
    if problem := find_url_problem(full):
        raise SourceNotAllowed(f"url: {problem}")
    scheme = scheme_of(full)
    if scheme not in policy.schemes and not (scheme == "http" and policy.http_hosts):
        raise SourceNotAllowed(
            f"url: the scheme {scheme} is not one that the worker reads ({', '.join(policy.schemes)}); add it to "
            "OPTAIC_SOURCE_SCHEMES, or for http the host to OPTAIC_SOURCE_HTTP_HOSTS"
        )
    if strange := find_strange_options(scheme, options):
        raise SourceNotAllowed(f"storage_options.{strange[0]}: {describe_options(scheme)}")
    return scheme, full, _Options(options, secrets), secrets


def _open_local(
    policy: SourcePolicy, full: str, url: str, secrets: BoundSecrets
) -> AbstractContextManager[OpenFile]:
    """Open a local file."""
    path = secrets.fill(_path_of(full), "url")
    secrets.check(Destination("file"), "a local file")
    return open_file(policy, path, field="url", shown=url)


def _make_target(
    scheme: str, full: str, given: _Options, secrets: BoundSecrets, method: str = "GET"
) -> Target:
    """Return the request for a file of the web or of S3."""
    if scheme in WEB:
        return replace(_make_web(full, given, secrets), method=method)
    return _make_s3(full, given, secrets, method)


def _is_unknown(url: str) -> bool:
    """Return whether a URL does not show its scheme: all of it, or its beginning, is a secret."""
    return "://" not in url and has_placeholder(url)


def _path_of(url: str) -> str:
    """Return the path of a local file; a URL of a file is not percent-encoded, as fsspec has it."""
    for start in ("file://", "local://", "file:", "local:"):
        if url.lower().startswith(start):
            return url[len(start) :]
    return url


class _Options:
    """`storage_options` with their secrets filled in."""

    def __init__(self, options: Options, secrets: BoundSecrets) -> None:
        self._options = options
        self._secrets = secrets

    def text(self, name: str) -> str:
        """Return a text; empty if it is absent.

        Raises:
            InvalidConfig: it is no text, or has characters that no request takes.
        """
        value = self._options.get(name)
        if value is None:
            return ""
        if not isinstance(value, str):
            raise InvalidConfig(f"storage_options.{name}: must be a text")
        filled = self._secrets.fill(value, f"storage_options.{name}")
        if not filled.isprintable():
            raise InvalidConfig(f"storage_options.{name}: has characters that cannot be sent")
        return filled

    def is_set(self, name: str) -> bool:
        """Return whether a flag is set."""
        value = self._options.get(name, False)
        if not isinstance(value, bool):
            raise InvalidConfig(f"storage_options.{name}: must be true or false")
        return value


def _make_web(url: str, options: _Options, secrets: BoundSecrets) -> Target:
    """Return the request for a URL. It is filled in after parsing: a secret may hold any character."""
    if "\\" in url or any(character.isspace() for character in url):
        raise InvalidConfig("url: must not contain blanks or backslashes")
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        raise InvalidConfig("url: is not a URL with a host") from None
    host = secrets.fill(_host_of(parts.netloc), "url")
    place = make_destination(parts.scheme.lower(), host, port)
    path = quote(secrets.fill(parts.path, "url") or "/", safe=_SAFE.replace("?", ""))
    if parts.query:
        path += f"?{quote(secrets.fill(parts.query, 'url'), safe=_SAFE)}"
    headers = {}
    user = secrets.fill(unquote(parts.username or ""), "url") or options.text("username")
    password = secrets.fill(unquote(parts.password or ""), "url") or options.text("password")
    if user or password:
        pair = base64.b64encode(f"{user}:{password}".encode()).decode()
        headers["Authorization"] = f"Basic {pair}"
    if token := options.text("token"):
        if headers or not token.isascii():
            raise InvalidConfig("storage_options.token: must be ASCII, and not be given beside a user")
        headers["Authorization"] = f"Bearer {token}"
    return Target(place, path, headers, _shown(parts.netloc, place))


def _host_of(netloc: str) -> str:
    """Return the host as it is written: the case counts in references to secrets."""
    host = netloc.rpartition("@")[2]
    if host.startswith("["):
        return host.partition("]")[0][1:]
    return re.sub(r":\d*$", "", host)


def _shown(netloc: str, place: Destination) -> str:
    return _host_of(netloc) if has_placeholder(netloc.rpartition("@")[2]) else place.host


def _make_s3(url: str, options: _Options, secrets: BoundSecrets, method: str) -> Target:
    bucket, _, key = url.partition("://")[2].partition("/")
    bucket, key = secrets.fill(bucket, "url"), secrets.fill(key, "url")
    if not _BUCKET.fullmatch(bucket) or not key:
        raise InvalidConfig("url: must be like s3://bucket/path/of/the/file.parquet")
    region = options.text("region") or s3.REGION
    if not re.fullmatch(r"[a-z0-9-]+", region):
        raise InvalidConfig("storage_options.region: must be like eu-central-1")
    path = s3.path_of(key)
    if endpoint := options.text("endpoint_url"):
        try:
            parts = urlsplit(endpoint)
            place = make_destination(parts.scheme.lower(), parts.hostname, parts.port)
        except (ValueError, InvalidConfig):
            place = Destination("")
        if place.scheme not in WEB or parts.username is not None or parts.path.strip("/") or parts.query:
            raise InvalidConfig("storage_options.endpoint_url: must be like https://s3.example.com")
        path = s3.path_of(f"{bucket}/{key}")
    elif "." in bucket:  # the certificate of AWS has one label for it
        place, path = Destination("https", f"s3.{region}.amazonaws.com"), s3.path_of(f"{bucket}/{key}")
    else:
        place = Destination("https", f"{bucket}.s3.{region}.amazonaws.com")
    if options.is_set("anon"):
        return Target(place, path, {}, place.host, method)
    key_id, secret = options.text("key"), options.text("secret")
    if not key_id or not secret:
        raise InvalidConfig(
            "storage_options: must give `key` and `secret`, as references to secrets, or `anon`: true. A source is not "
            "read with the credentials of the worker"
        )
    credentials = s3.Credentials(key_id, secret, options.text("token"))
    headers = s3.sign(place, path, region, credentials, dt.datetime.now(dt.UTC), method)
    return Target(place, path, headers, place.host, method)
