"""Move the data of a tenant to another place: the calls; `optaic admin move-data` copies in between."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Mapping
from contextlib import aclosing
from typing import Any

from optaic.client.connection import Connection
from optaic.client.definitions import each_page
from optaic.rules.pages import LARGEST_SIZE
from optaic.run.v1 import data_move_service_pb2 as api
from optaic.run.v1 import run_pb2, run_service_pb2
from optaic.run.v1.data_move_service_pb2_grpc import DataMoveServiceStub
from optaic.run.v1.run_service_pb2_grpc import RunServiceStub


class DataMoves:
    """The move of the caller's tenant, of which there is one at most."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    async def _call(self, method: str, request: Any) -> api.DataMove:
        found: api.DataMove = await self._connection.call("run", DataMoveServiceStub, method, request)
        return found

    async def get(self) -> api.DataMove:
        """Return where the tenant's data lies, and the move that is under way."""
        return await self._call("GetDataMove", api.GetDataMoveRequest())

    async def begin(self, from_root: str, to_root: str) -> api.DataMove:
        """Hold the tenant's runs; while they are held, no run begins."""
        return await self._call(
            "BeginDataMove", api.BeginDataMoveRequest(from_root=from_root, to_root=to_root)
        )

    async def switch(self, from_root: str, to_root: str) -> api.DataMove:
        """Have data read at the new place, after everything was copied and compared."""
        return await self._call(
            "SwitchDataMove", api.SwitchDataMoveRequest(from_root=from_root, to_root=to_root)
        )

    async def end(
        self, from_root: str, to_root: str, expected_state: api.DataMove.State.ValueType
    ) -> api.DataMove:
        """Let runs begin again: give up a move that is HELD, or finish one that is SWITCHED."""
        request = api.EndDataMoveRequest(from_root=from_root, to_root=to_root, expected_state=expected_state)
        return await self._call("EndDataMove", request)

    async def each_run(self) -> AsyncGenerator[run_pb2.Run]:
        """Yield all runs of the tenant, without their manifests, newest first."""

        async def page(request: Any) -> Any:
            return await self._connection.call("run", RunServiceStub, "ListRuns", request)

        request = run_service_pb2.ListRunsRequest(page_size=LARGEST_SIZE)
        async with aclosing(each_page(page, request, "runs")) as runs:
            async for run in runs:
                yield run

    def find_object_store(self, uri: str) -> Mapping[str, str]:
        """Return the variables by which data of a stack on this machine is reached in the stack's own object store."""
        return self._connection.find_object_store(uri)
