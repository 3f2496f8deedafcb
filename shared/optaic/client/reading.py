"""Read tables from stores and files with the plugins installed on this machine; blocks, and calls no service."""

from __future__ import annotations

import contextlib
import io
import json
import os
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

import grpc

from optaic import errors, storage
from optaic.client.selection import Fetch, FetchRows, Find, Selection, Stored
from optaic.plugins import Accessor, PluginError, Store, StoredVersion, load, select_rows
from optaic.plugins import errors as plugin_errors
from optaic.rules.artifacts import find_problem, measure
from optaic.rules.columns import KEYS
from optaic.rules.kept_outputs import READ_BY
from optaic.run.v1 import run_pb2

if TYPE_CHECKING:
    import polars as pl

_CODES: Mapping[type[PluginError], tuple[type[errors.OptaicError], grpc.StatusCode, str]] = {
    plugin_errors.VersionNotFound: (errors.NotFoundError, grpc.StatusCode.NOT_FOUND, "VERSION_NOT_FOUND"),
    plugin_errors.SchemaMismatch: (
        errors.InvalidArgumentError,
        grpc.StatusCode.INVALID_ARGUMENT,
        "SCHEMA_MISMATCH",
    ),
    plugin_errors.StoreUnavailable: (
        errors.UnavailableError,
        grpc.StatusCode.UNAVAILABLE,
        "STORE_UNAVAILABLE",
    ),
    plugin_errors.PluginNotFound: (
        errors.FailedPreconditionError,
        grpc.StatusCode.FAILED_PRECONDITION,
        "PLUGIN_NOT_INSTALLED",
    ),
    plugin_errors.PluginInvalid: (
        errors.FailedPreconditionError,
        grpc.StatusCode.FAILED_PRECONDITION,
        "PLUGIN_NOT_INSTALLED",
    ),
}
_MOST_IN_URL = 8_000  # characters of a list; a longer one is applied to what comes
_UNREADABLE = (errors.FailedPreconditionError, grpc.StatusCode.FAILED_PRECONDITION, "DATA_NOT_READABLE")


def read_stored(stored: Stored, wanted: Selection, find: Find, fetch: FetchRows) -> pl.DataFrame:
    """Return rows of a version through its store and accessor; `fetch` gives them where their place is out of reach.

    Raises:
        OptaicError: They are not installed here, or cannot give what is wanted.
    """
    with _explained(stored.name), storage.found(find(stored.uri)):
        from optaic.plugins.numbers import type_numbers  # noqa: PLC0415 - the extra `data` brings what it needs

        made: list[Any] = []
        for plugin, base in ((stored.store, Store), (stored.accessor, Accessor)):
            kind: Any = load(plugin.code_ref, base)
            made.append(kind(type_numbers(dict(plugin.config), plugin.schema)))
        store, accessor = made
        if stored.timezone:
            store.timezone = stored.timezone
        place = (stored.uri, stored.physical_version)
        try:
            table: pl.DataFrame = accessor.read(store, *place, **wanted.arguments())
        except (plugin_errors.StoreUnavailable, plugin_errors.VersionNotFound, OSError):
            fetched = _fetched(stored, wanted, fetch) if is_out_of_reach(stored.uri) else None
            if fetched is None:
                raise
            table = accessor.read(fetched, *place, **wanted.arguments())
        return table


class _Fetched(Store):
    """The version that a gateway has sent, in place of its store."""

    def __init__(self, table: pl.DataFrame) -> None:
        super().__init__()
        self._table = table

    def read(self, uri: str, physical_version: str) -> pl.DataFrame:
        """Return it."""
        del uri, physical_version
        return self._table

    def write(self, table: pl.DataFrame, base_version: str | None, uri: str) -> StoredVersion:
        """Refuse: it is a copy."""
        del table, base_version, uri
        raise plugin_errors.StoreRefused("what a gateway has sent is a copy; write by a run")


def _fetched(stored: Stored, wanted: Selection, fetch: FetchRows) -> Store | None:
    """Return a store that holds what a gateway sends, no less than what is wanted; None without a gateway.

    An accessor that does more than select needs the whole version.
    """
    sent = wanted.arguments() if stored.accessor.code_ref == READ_BY else {}
    short = {
        name: None if isinstance(value, list) and len(json.dumps(value)) > _MOST_IN_URL else value
        for name, value in sent.items()
    }
    pages = fetch(stored.run_id, short)
    if pages is None:
        return None
    import polars as pl  # noqa: PLC0415 - only readers of data pay for it

    table = pl.concat([pl.read_ipc_stream(page) for page in pages])
    keys = stored.store.config.get("keys") or KEYS
    return _Fetched(table.sort([key for key in keys if key in table.columns]))


def read_artifact(
    name: str, run: run_pb2.Run, artifact: str, wanted: Selection, find: Find, fetch: Fetch
) -> pl.DataFrame:
    """Return rows of a Parquet file that a run has written; `fetch` gives it where its place is out of reach.

    Raises:
        ArtifactCorruptError: It is not the file that the run wrote.
        OptaicError: It cannot be read, or has not what is wanted.
    """
    uri = run.artifacts[artifact]
    with _explained(name), storage.found(find(uri)):
        import polars as pl  # noqa: PLC0415 - only readers of data pay for it

        content = _read(uri, run.run_id, artifact, fetch)
        entry = next((each for each in run.artifact_manifest if each.name == artifact), None)
        if entry is not None and (problem := find_problem(entry, *measure(io.BytesIO(content)))):
            raise errors.ArtifactCorruptError(
                grpc.StatusCode.DATA_LOSS,
                "ARTIFACT_CORRUPT",
                f"{name}: {problem}; run the flow again, or restore the file",
            )
        try:
            table = pl.read_parquet(io.BytesIO(content))
        except pl.exceptions.PolarsError as error:
            raise plugin_errors.StoreRefused(f"{uri} is not a readable Parquet file: {error}") from error
        found = select_rows(table, **wanted.arguments())
        return found if wanted.columns else found.select(table.columns)


def _read(uri: str, run_id: str, artifact: str, fetch: Fetch) -> bytes:
    try:
        return storage.read(uri)
    except OSError:
        content = fetch(run_id, artifact) if is_out_of_reach(uri) else None
        if content is None:
            raise
        return content


def is_out_of_reach(uri: str) -> bool:
    """Return whether not only a file is missing, but its folder as well: it is another machine's, or another user's."""
    place = storage.local_place(uri)
    return storage.is_remote(uri) or not os.access(place.rpartition("/")[0], os.R_OK | os.X_OK)


@contextlib.contextmanager
def _explained(name: str) -> Iterator[None]:
    """Convert the errors of plugins and libraries to the client's errors."""
    try:
        yield
    except PluginError as error:
        kinds = (found for kind, found in _CODES.items() if isinstance(error, kind))
        kind, code, reason = next(kinds, _UNREADABLE)
        hint = ""
        if reason == "PLUGIN_NOT_INSTALLED":
            hint = "; install its package here too (for the built-in ones: pip install 'optaic[data]')"
        raise kind(code, reason, f"{name}: {error}{hint}") from error
    except ImportError as error:
        kind, code, reason = _CODES[plugin_errors.PluginNotFound]
        raise kind(code, reason, f"{name}: {error}; run pip install 'optaic[data]'") from error
    except FileNotFoundError as error:
        kind, code, reason = _CODES[plugin_errors.VersionNotFound]
        raise kind(code, reason, f"{name}: its data no longer exists: {error}") from error
    except OSError as error:
        kind, code, reason = _CODES[plugin_errors.StoreUnavailable]
        raise kind(code, reason, f"{name}: its data cannot be read from this machine: {error}") from error
