"""The store `delta`: Delta Lake tables with immutable versions; it never builds on a version other than the pinned one."""

from __future__ import annotations

import datetime as dt
import re
from collections.abc import Mapping
from typing import Literal

import polars as pl
import pyarrow as pa  # type: ignore[import-untyped] # it ships no type information
from deltalake import (
    CommitProperties,
    DeltaTable,
    PostCommitHookProperties,
    WriterProperties,
    write_deltalake,
)
from deltalake.exceptions import CommitFailedError, DeltaError, TableNotFoundError

from optaic import storage
from optaic.plugins import Store, StoredVersion, VersionNotFound, WriteConflict
from optaic.plugins.words import describe_error
from optaic.rules.columns import DATE, KEYS
from worker.builtin.change import Change, compare_from, last_date
from worker.builtin.digest import canonicalize, sort_by, to_storage
from worker.builtin.kept_digests import find_days, keep_days
from worker.builtin.limits import note_finer_times
from worker.builtin.parameters import read_names
from worker.builtin.removal import remove_tree
from worker.builtin.store_errors import typed
from worker.builtin.zones import Zones, to_utc, to_zones, zones_of

_ATTEMPTS = 8
_VERSION = re.compile(r"[0-9]{1,18}")
# No rebasing: a commit that is not exactly head + 1 fails. Prevents an append from landing on top of rows that a
# fenced writer committed in between.
_ON_HEAD_ONLY = CommitProperties(max_commit_retries=0)
# Old versions are inputs of recorded runs: neither their log nor their files may expire by themselves.
_KEEP_LOG = PostCommitHookProperties(create_checkpoint=True, cleanup_expired_logs=False)
_CONFIGURATION: Mapping[str, str | None] = {
    "delta.logRetentionDuration": "interval 36500 days",
    "delta.deletedFileRetentionDuration": "interval 36500 days",
}
# Rows in one piece of a file: who reads from a date on skips the pieces before it.
_PIECES = WriterProperties(max_row_group_size=131_072)
_ZONE = "optaic.zone"  # in a field's metadata: Delta itself keeps instants without saying whose clock they were on


class DeltaStore(Store):
    """A store of the versions of one table at one URI. Config: `keys`, which identify a row (`date`, `entity`)."""

    def __init__(self, config: Mapping[str, object] | None = None) -> None:
        super().__init__(config)
        self._keys = list(read_names(self.config, "keys") or KEYS)

    @typed
    def write(self, table: pl.DataFrame, base_version: str | None, uri: str) -> StoredVersion:
        """Commit exactly `table`; return the base version itself if it already holds this content."""
        content = canonicalize(table, self._keys)
        given = None if base_version is None else self.read(uri, base_version)
        change = Change(content, None if given is None else to_utc(given), self._keys)
        zones = zones_of(table)
        if base_version is not None and change.is_none and given is not None and zones_of(given) == zones:
            version = int(base_version)
        else:
            base = None if base_version is None else int(base_version)
            version = _commit(content, zones, change, base, uri)
            keep_days(uri, version, change.day_digests, base)
        return self._describe(table, change, str(version), zones, uri)

    @typed
    def write_part(self, table: pl.DataFrame, start: dt.date, base_version: str, uri: str) -> StoredVersion:
        """Write the table, comparing only its rows from a date on."""
        snapshot = _open(uri, base_version)
        base = self._read(snapshot, start)
        change = compare_from(table, base, self._keys, start, find_days(uri, snapshot))
        if change is None:
            return self.write(table, base_version, uri)
        zones, version = zones_of(table), int(base_version)
        if not change.is_none:
            version = _commit(to_storage(table), zones, change, version, uri)
            keep_days(uri, version, change.day_digests, int(base_version))
        return self._describe(table, change, str(version), zones, uri)

    def _describe(
        self, table: pl.DataFrame, change: Change, version: str, zones: Zones, uri: str
    ) -> StoredVersion:
        return StoredVersion(
            uri=uri,
            physical_version=version,
            digest=change.digest,
            changed=change.days,
            row_count=table.height,
            rows_inserted=change.inserted.height,
            rows_updated=change.updated_count,
            last_data_date=last_date(table),
            keys=tuple(self._keys),
            notes=note_finer_times(table),
            zones=zones,
            rows_deleted=change.deleted_count,
        )

    def key_columns(self) -> tuple[str, ...]:
        """Return the configured key columns."""
        return tuple(self._keys)

    @typed
    def read(self, uri: str, physical_version: str) -> pl.DataFrame:
        """Return one version, sorted by key."""
        return self._read(_open(uri, physical_version))

    @typed
    def read_from(self, uri: str, physical_version: str, start: dt.date) -> pl.DataFrame:
        """Read only what may have rows from a day on."""
        if self.read_types(uri, physical_version).get(DATE) != pl.Date:
            return super().read_from(uri, physical_version, start)
        return self._read(_open(uri, physical_version), start)

    def _read(self, snapshot: DeltaTable, start: dt.date | None = None) -> pl.DataFrame:
        """Return the rows of a version, from a date on where one is given."""
        filters = None if start is None else [(DATE, ">=", start)]
        # Not by polars' own reader: it takes the escapes of a URI, as of a space, for the file's name.
        try:
            table = pl.from_arrow(snapshot.to_pyarrow_table(filters=filters))
        except (FileNotFoundError, pa.ArrowException) as error:
            raise VersionNotFound(
                f"version {snapshot.version()} of {snapshot.table_uri} cannot be read (restore its files): {describe_error(error)}"
            ) from error
        assert isinstance(table, pl.DataFrame)
        table = to_zones(table, _read_zones(snapshot), self.timezone)
        return sort_by(table, [key for key in self._keys if key in table.columns])

    @typed
    def read_types(self, uri: str, physical_version: str) -> Mapping[str, pl.DataType]:
        """Read the types of the columns from the version's log alone."""
        snapshot = _open(uri, physical_version)
        empty = pl.from_arrow(pa.schema(snapshot.schema().to_arrow()).empty_table())
        assert isinstance(empty, pl.DataFrame)
        return to_zones(empty, _read_zones(snapshot), self.timezone).schema

    @typed
    def remove(self, uri: str) -> None:
        """Remove all versions, which is the folder."""
        remove_tree(uri)


def _open(uri: str, physical_version: str) -> DeltaTable:
    if not _VERSION.fullmatch(physical_version):
        raise VersionNotFound(f"{physical_version!r} is not a version number of a Delta table")
    try:
        return DeltaTable(uri, int(physical_version), storage.table_options(uri))
    except (DeltaError, TableNotFoundError) as error:
        raise VersionNotFound(
            f"{uri} has no readable version {physical_version} (restore its files): {describe_error(error)}"
        ) from error


def _read_zones(snapshot: DeltaTable) -> dict[str, str]:
    """Return the zones that were stored with the columns; empty for versions of an older release."""
    metadata = {field.name: field.metadata for field in snapshot.schema().fields}
    return {name: str(known[_ZONE]) for name, known in metadata.items() if _ZONE in known}


def _with_zones(content: pl.DataFrame, zones: Zones) -> pa.Table:
    table = content.to_arrow()
    fields = [
        field.with_metadata({_ZONE: zones[field.name]}) if field.name in zones else field
        for field in table.schema
    ]
    return pa.Table.from_arrays(table.columns, schema=pa.schema(fields))


def _commit(content: pl.DataFrame, zones: Zones, change: Change, base_version: int | None, uri: str) -> int:
    """Return the version that now holds the content: appended where the head is the base, else written whole."""
    options = storage.table_options(uri)
    for _ in range(_ATTEMPTS):
        try:
            if not DeltaTable.is_deltatable(uri, options):
                write_deltalake(
                    uri,
                    _with_zones(content, zones),
                    mode="error",
                    configuration=_CONFIGURATION,
                    commit_properties=_ON_HEAD_ONLY,
                    writer_properties=_PIECES,
                    post_commithook_properties=_KEEP_LOG,
                    storage_options=options,
                )
                return 0
            head = DeltaTable(uri, storage_options=options)
            expected = head.version() + 1
            # What is added has to have the zones of what it is added to.
            is_append = change.is_addition and head.version() == base_version and _read_zones(head) == zones
            schema_mode: Literal["merge", "overwrite"] | None = "overwrite"
            if is_append:
                schema_mode = "merge" if change.adds_columns else None
            write_deltalake(
                head,
                _with_zones(change.inserted if is_append else content, zones),
                mode="append" if is_append else "overwrite",
                schema_mode=schema_mode,
                commit_properties=_ON_HEAD_ONLY,
                writer_properties=_PIECES,
                post_commithook_properties=_KEEP_LOG,
            )
        except CommitFailedError:
            continue  # another writer committed: read the new head
        except DeltaError as error:
            if "already exists" in str(error):
                continue  # another writer created the table
            raise
        return expected
    raise WriteConflict(
        f"{uri}: other writers committed first {_ATTEMPTS} times in a row; submit the run again"
    )
