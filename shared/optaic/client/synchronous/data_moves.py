"""Move the data of a tenant to another place: the calls; `optaic admin move-data` copies in between. Generated from optaic.client.data_moves by `make client`; do not edit."""

from __future__ import annotations

from collections.abc import Generator, Mapping

from optaic.client import data_moves as asynchronous
from optaic.client.synchronous.loop import Plain
from optaic.run.v1 import data_move_service_pb2 as api
from optaic.run.v1 import run_pb2


class DataMoves(Plain[asynchronous.DataMoves]):
    """The move of the caller's tenant, of which there is one at most."""

    def get(self) -> api.DataMove:
        """Return where the tenant's data lies, and the move that is under way."""
        return self._loop.run(self._target.get())

    def begin(self, from_root: str, to_root: str) -> api.DataMove:
        """Hold the tenant's runs; while they are held, no run begins."""
        return self._loop.run(self._target.begin(from_root, to_root))

    def switch(self, from_root: str, to_root: str) -> api.DataMove:
        """Have data read at the new place, after everything was copied and compared."""
        return self._loop.run(self._target.switch(from_root, to_root))

    def end(self, from_root: str, to_root: str, expected_state: api.DataMove.State.ValueType) -> api.DataMove:
        """Let runs begin again: give up a move that is HELD, or finish one that is SWITCHED."""
        return self._loop.run(self._target.end(from_root, to_root, expected_state))

    def each_run(self) -> Generator[run_pb2.Run, None, None]:
        """Yield all runs of the tenant, without their manifests, newest first."""
        return self._loop.iterate(self._target.each_run())

    def find_object_store(self, uri: str) -> Mapping[str, str]:
        """Return the variables by which data of a stack on this machine is reached in the stack's own object store."""
        return self._target.find_object_store(uri)
