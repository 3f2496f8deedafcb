"""The data that flows produced, as polars frames."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import grpc

from optaic import errors
from optaic.client.connection import Connection
from optaic.client.lineage import Lineage
from optaic.client.references import FlowLike, flow_of
from optaic.client.runs import Runs
from optaic.common.v1 import flow_pb2
from optaic.run.v1 import run_pb2

if TYPE_CHECKING:
    import polars as pl


class Data:
    """Reads versions of datasets; it never writes."""

    def __init__(self, connection: Connection, lineage: Lineage, runs: Runs) -> None:
        self._connection = connection
        self._lineage = lineage
        self._runs = runs

    async def read(
        self, flow: FlowLike, version: int | str | None = None, *, flow_kind: str | int | None = None
    ) -> pl.DataFrame:
        """Return a version of a flow's output: the current one, a logical number, or a version id (a run's id).

        Raises:
            NotFoundError: VERSION_NOT_FOUND; there is no such version.
        """
        reference = await flow_of(self._connection, flow, flow_kind)
        found = await self._find(reference, version)
        return await asyncio.to_thread(_read_delta, found.uri, int(found.physical_version))

    async def _find(self, flow: flow_pb2.FlowRef, version: int | str | None) -> flow_pb2.VersionRef:
        if isinstance(version, str):
            return (await self._runs.get(version)).output_version
        current = (await self._lineage.state(flow)).current_version
        if current.version and version in {None, current.version}:
            return current
        if version is not None and 0 < version < current.version:
            runs = await self._runs.list(
                flow.instance_id, flow_kind=flow.flow_kind, statuses=[run_pb2.RUN_STATUS_COMPLETED]
            )
            numbered = _numbered(runs)
            if version in numbered:
                return numbered[version]
        wanted = "an output" if version is None else f"version {version}"
        raise errors.NotFoundError(
            grpc.StatusCode.NOT_FOUND, "VERSION_NOT_FOUND", f"flow {flow.instance_id} has not got {wanted}"
        )


def _numbered(runs: list[run_pb2.Run]) -> dict[int, flow_pb2.VersionRef]:
    """Return the versions by number: a run whose output equals the version before it made no new one."""
    versions: dict[int, flow_pb2.VersionRef] = {}
    digest = None
    for run in sorted(runs, key=lambda each: each.run_number):
        if run.output_version.digest != digest:
            digest = run.output_version.digest
            versions[len(versions) + 1] = run.output_version
    return versions


def _read_delta(uri: str, version: int) -> pl.DataFrame:
    import polars as pl  # noqa: PLC0415 - only readers of data pay for it
    from deltalake import DeltaTable  # noqa: PLC0415 - the same; the extra `data` brings it

    # Not by polars' own reader: it takes the escapes of a URI, as of a space, for the file's name.
    table = pl.from_arrow(DeltaTable(uri, version=version).to_pyarrow_table())
    assert isinstance(table, pl.DataFrame)
    return table.sort([name for name in ("date", "entity") if name in table.columns])
