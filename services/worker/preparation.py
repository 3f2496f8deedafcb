"""The preparation of a run while its start is asked for: the process around its child, and its instance."""

from __future__ import annotations

import asyncio
from typing import Self

from optaic.instance.v1 import instance_pb2
from servicekit.errors import DomainError
from worker.guardian import Line
from worker.isolation import StartGuardian
from worker.peers import Peers


class Preparation:
    """The preparation of one claimed flow run; leaving the block ends what was not used."""

    def __init__(self, instance_id: str, peers: Peers, start: StartGuardian) -> None:
        self._instance_id = instance_id
        self._peers = peers
        self._start = start
        self._is_taken = False

    async def __aenter__(self) -> Self:
        self._starting = asyncio.create_task(self._start_guardian(), name="guardian")
        self._reading = asyncio.create_task(
            self._peers.get_instance(self._instance_id), name="newest-revision"
        )
        return self

    async def __aexit__(self, *_: object) -> None:
        self._reading.cancel()
        if not self._is_taken:
            self._starting.add_done_callback(_let_go)
        await asyncio.wait({self._starting, self._reading})

    async def take_guardian(self) -> Line:
        """Return the guardian; whoever calls this ends it. It is there once."""
        self._is_taken = True
        return await self._starting

    async def get_instance(self, instance_id: str, revision: int) -> instance_pb2.Instance:
        """Return an instance at a revision, which most often is the one that was read ahead.

        Raises:
            DomainError: It cannot be read.
        """
        if instance_id == self._instance_id:
            try:
                newest = await self._reading
            except DomainError:  # an older revision may be there nevertheless
                pass
            else:
                if newest.revision == revision:
                    return newest
        return await self._peers.get_instance(instance_id, revision)

    async def _start_guardian(self) -> Line:
        return await self._start()


def _let_go(starting: asyncio.Task[Line]) -> None:
    if not starting.cancelled() and starting.exception() is None:
        starting.result().close()
