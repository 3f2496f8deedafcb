"""Say how the `url` and `storage_options` of a source may be written; hosts, folders and secrets are the worker's policy."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping

FILE_CODE = frozenset(
    {"worker.builtin.file_source:FilePipeline", "worker.builtin.typed_file_source:TypedFilePipeline"}
)
URL = "url"  # the property of every external store that says where its data is
# The store that reads a file in place.
EXTERNAL_CODE = frozenset({"worker.builtin.external_store:ExternalFileStore"})
VERSION = "{version}"  # in its URL: what the other system calls the version
SQL_CODE = frozenset(
    {"worker.builtin.sql_source:SqlPipeline", "worker.builtin.typed_sql_source:TypedSqlPipeline"}
)
WEB = frozenset({"http", "https"})
SCHEMES = frozenset({"file", "s3", *WEB})
_LOCAL = frozenset({"file", "local"})
_SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9+.\-]*")
# Options that choose how a file is read. None of them writes a file or names another place, except `endpoint_url`,
# which the worker checks like the host of a URL.
_WEB_OPTIONS = frozenset({"compression", "username", "password", "token"})
OPTIONS: Mapping[str, frozenset[str]] = {
    "file": frozenset({"compression"}),
    "http": _WEB_OPTIONS,
    "https": _WEB_OPTIONS,
    "s3": frozenset({"compression", "anon", "key", "secret", "token", "region", "endpoint_url"}),
}


def scheme_of(url: str) -> str:
    """Return the scheme of a source's URL in lower case; a plain path has `file`. It may be one that is not allowed."""
    scheme, separator, _ = url.partition("://")
    if not separator:
        return "data" if url.strip().lower().startswith("data:") else "file"
    return "file" if scheme.lower() in _LOCAL else scheme.lower()


def find_url_problem(url: str) -> str:
    """Return what is wrong with how the URL of a file is written; empty if nothing is."""
    if "::" in url:
        return "protocols must not be chained with `::`; give the URL of the file itself"
    if any(character < " " or character == "\x7f" for character in url):
        return "must not contain control characters"
    scheme = scheme_of(url)
    if scheme not in SCHEMES:
        known = ", ".join(sorted(SCHEMES))
        said = repr(scheme) if _SCHEME.fullmatch(scheme) else "this one"
        return f"the scheme {said} is not supported; use one of {known}"
    return ""


def find_version_problem(url: str) -> str:
    """Return what is wrong with the place of `{version}` in a URL; empty if nothing is.

    Whoever reports a version gives its name, and must not choose the host, the bucket or the scheme by it.
    """
    head, separator, _ = url.partition(VERSION)
    place = head.partition("://")[2] if "://" in head else head
    if not separator or "/" in place:
        return ""
    return (
        f"{VERSION} must stand in the path, after the first slash behind the host, the bucket or the folder"
    )


def find_strange_options(scheme: str, names: Iterable[str]) -> list[str]:
    """Return those of `storage_options` that the scheme does not take."""
    return [name for name in names if name not in OPTIONS.get(scheme, frozenset())]


def describe_options(scheme: str) -> str:
    """Say of one of `storage_options` that the scheme does not take it, and which ones it does."""
    return f"is not an option for {scheme}; allowed are {', '.join(sorted(OPTIONS.get(scheme, ())))}"
