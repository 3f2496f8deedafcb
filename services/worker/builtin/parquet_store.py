"""The store `parquet`: a folder for each version, published by its manifest; it keeps no order of versions.

A version is called by its content's digest, and by the zones of its columns where they have any, so writing the same
again, even by two writers at once, gives the same version. A version exists once its manifest does; the manifest is put in place last, atomically.
"""

from __future__ import annotations

import datetime as dt
import hashlib
import json
import re
import uuid
from collections.abc import Callable, Mapping
from typing import Any

import polars as pl

from optaic import storage
from optaic.plugins import Store, StoredVersion, StoreUnavailable, VersionNotFound
from optaic.plugins.words import describe_error
from optaic.rules.columns import KEYS
from worker.builtin.change import Change, compare_from, last_date
from worker.builtin.day_digests import PREFIX
from worker.builtin.digest import canonicalize, sort_by, to_storage
from worker.builtin.limits import note_finer_times
from worker.builtin.parameters import read_choice, read_names
from worker.builtin.removal import remove_tree
from worker.builtin.store_errors import typed
from worker.builtin.zones import Zones, to_utc, to_zones, zones_of

_VERSION = re.compile(r"[0-9a-f]{64}(-[0-9a-f]{16})?")
_COMPRESSIONS = ("zstd", "snappy", "lz4", "uncompressed")
_DATA, _MANIFEST = "data.parquet", "manifest.json"
_FORMAT = 1
_ATTEMPTS = 3  # to publish a version that other writers withdraw


class ParquetStore(Store):
    """A store that keeps versions as Parquet files. Config: `keys` (`date`, `entity`) and `compression` (`zstd`)."""

    def __init__(self, config: Mapping[str, object] | None = None) -> None:
        super().__init__(config)
        self._keys = list(read_names(self.config, "keys") or KEYS)
        self._compression = read_choice(self.config, "compression", _COMPRESSIONS, "zstd")

    @typed
    def write(self, table: pl.DataFrame, base_version: str | None, uri: str) -> StoredVersion:
        """Publish exactly `table`; where its content is a version already, that one."""
        given = None if base_version is None else self.read(uri, base_version)
        content = canonicalize(table, self._keys, () if given is None else given.columns)
        change = Change(content, None if given is None else to_utc(given), self._keys)
        zones = zones_of(table)
        if base_version is not None and change.is_none and given is not None and zones_of(given) == zones:
            version = base_version
        else:
            version = _publish(content, zones, change.digest, uri, self._compression)
        return self._describe(table, change, version, zones, uri)

    @typed
    def write_part(self, table: pl.DataFrame, start: dt.date, base_version: str, uri: str) -> StoredVersion:
        """Write the table, comparing only its rows from a date on."""
        change = compare_from(table, self.read(uri, base_version), self._keys, start)
        if change is None:
            return self.write(table, base_version, uri)
        zones, version = zones_of(table), base_version
        if not change.is_none:
            content = sort_by(to_storage(table), self._keys)
            version = _publish(content, zones, change.digest, uri, self._compression)
        return self._describe(table, change, version, zones, uri)

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
        folder, manifest = _open(uri, physical_version)
        table = folder.read_data(str(manifest["file"]))
        if table.height != manifest["row_count"]:
            raise VersionNotFound(
                f"version {physical_version} of {uri} is damaged: rows are missing; restore its files"
            )
        table = to_zones(table, manifest.get("zones", {}), self.timezone)
        return sort_by(table, [key for key in self._keys if key in table.columns])

    @typed
    def read_types(self, uri: str, physical_version: str) -> Mapping[str, pl.DataType]:
        """Read the types of the columns from the data file's footer alone."""
        folder, manifest = _open(uri, physical_version)
        empty = folder.read_types(str(manifest["file"]))
        return to_zones(empty, manifest.get("zones", {}), self.timezone).schema

    @typed
    def remove(self, uri: str) -> None:
        """Remove all versions, which is the folder."""
        remove_tree(uri)


def _open(uri: str, physical_version: str) -> tuple[_Folder, dict[str, Any]]:
    if not _VERSION.fullmatch(physical_version):
        raise VersionNotFound(f"{physical_version!r} is not the digest of a version")
    folder = _Folder(uri, physical_version)
    manifest = folder.read_manifest()
    if manifest is None:
        raise VersionNotFound(
            f"{uri} has no version {physical_version}; read another version, or restore its files"
        )
    return folder, manifest


def _publish(content: pl.DataFrame, zones: Zones, digest: str, uri: str, compression: str) -> str:
    """Return the version that has this content and these zones; publish a new one if there is none."""
    mark = hashlib.sha256(json.dumps(zones, sort_keys=True).encode()).hexdigest()[:16]
    name = digest.removeprefix(PREFIX)
    version = f"{name}-{mark}" if zones else name
    folder = _Folder(uri, version)
    if not folder.is_whole():
        folder.publish(content, zones, compression)
    return version


class _Folder:
    """The folder of one version."""

    def __init__(self, uri: str, version: str) -> None:
        self._uri = f"{uri}/{version}"

    def publish(self, content: pl.DataFrame, zones: Zones, compression: str) -> None:
        """Write the data, then the manifest that makes it a version."""
        # Each attempt has its own name, so that no writer overwrites a file that a manifest names.
        name = f"{uuid.uuid4()}-{_DATA}"
        with storage.create_file(f"{self._uri}/{name}") as stream:
            content.write_parquet(stream, compression=compression)  # type: ignore[arg-type]  # checked before
        manifest = {
            "format": _FORMAT,
            "file": name,
            "row_count": content.height,
            "columns": content.columns,
            "zones": zones,
        }
        for _ in range(_ATTEMPTS):
            if storage.publish(f"{self._uri}/{_MANIFEST}", json.dumps(manifest).encode()):
                self._check_published(name)
                return
            winner = self.read_manifest()
            if winner is None:
                continue  # another writer has withdrawn its version meanwhile
            if winner["file"] == name:  # ours: the answer to our own writing was lost
                self._check_published(name)
                return
            if self._has(winner["file"]):
                storage.remove_file(f"{self._uri}/{name}")
                return
            self._withdraw(str(winner["file"]))
        raise StoreUnavailable(
            f"{self._uri}: other writers publish and withdraw this version; submit the run again"
        )

    def is_whole(self) -> bool:
        """Return whether there is a manifest, and the data that it names."""
        manifest = self.read_manifest()
        return manifest is not None and self._has(manifest["file"])

    def _has(self, name: object) -> bool:
        return storage.exists(f"{self._uri}/{name}")

    def _check_published(self, name: str) -> None:
        """Withdraw the version if its data was removed meanwhile, as a leftover of a run that has ended.

        Raises:
            StoreUnavailable: it was.
        """
        if not self._has(name):
            self._withdraw(name)
            raise StoreUnavailable(
                f"{self._uri}: the data of the version was removed before the version was published, because this took longer than "
                "a day; submit the run again"
            )

    def _withdraw(self, name: str) -> None:
        """Remove the manifest, if it names this file, which is gone."""
        manifest = self.read_manifest()
        if manifest is not None and manifest["file"] == name:
            storage.remove_file(f"{self._uri}/{_MANIFEST}")

    def read_manifest(self) -> dict[str, Any] | None:
        """Read the manifest of a version; None if there is no such version."""
        try:
            manifest: dict[str, Any] = json.loads(storage.read(f"{self._uri}/{_MANIFEST}"))
        except (FileNotFoundError, NotADirectoryError):
            return None
        return manifest

    def read_types(self, name: str) -> pl.DataFrame:
        """Return the columns of the data file, without rows; errors as of `read_data`."""
        return self._read(name, lambda stream: pl.DataFrame(schema=pl.read_parquet_schema(stream)))

    def read_data(self, name: str) -> pl.DataFrame:
        """Read the data file of a version.

        Raises:
            VersionNotFound: it was removed or damaged.
        """
        return self._read(name, pl.read_parquet)

    def _read(self, name: str, read: Callable[[Any], pl.DataFrame]) -> pl.DataFrame:
        try:
            with storage.open_file(f"{self._uri}/{name}") as stream:
                return read(stream)
        except (FileNotFoundError, pl.exceptions.PolarsError) as error:
            raise VersionNotFound(f"{self._uri} cannot be read: {describe_error(error)}") from error
