"""Guardians of runs, forked from the warm process; this process, which reports, is never an ancestor by fork."""

from __future__ import annotations

import asyncio
import socket

import structlog

from worker import process_tree, temporary
from worker.children import Child, Forkserver
from worker.guardian import Line, guard, make_lines

_END_SECONDS = 5.0
_log = structlog.get_logger(__name__)


class Guardians:
    """The start of one guardian for each run."""

    def __init__(self, forkserver: Forkserver) -> None:
        self._forkserver = forkserver
        self._watches: set[asyncio.Task[None]] = set()

    async def start(self) -> Line:
        """Start a guardian; it ends with its run, or when this process ends."""
        ours, guardians = make_lines()
        starting = asyncio.create_task(self._start(guardians), name="guardian-start")
        try:
            # A thread uses the descriptors also when nobody waits for it any more.
            await asyncio.shield(starting)
        except BaseException:
            ours.close()
            raise
        return ours

    async def _start(self, line: Line) -> None:
        """Start a guardian that has this line; let go of it here."""
        try:
            # Not tied to the forkserver: whatever dies, the guardian first ends what its run has started.
            child = await self._forkserver.run(_be_guardian, line.orders, line.work, is_tied=False)
        finally:
            line.close()
        watch = asyncio.create_task(self._watch(child), name=f"guardian-{child.pid}")
        self._watches.add(watch)
        watch.add_done_callback(self._watches.discard)

    async def wait(self) -> None:
        """Wait until all guardians have ended."""
        await asyncio.gather(*self._watches)

    async def _watch(self, child: Child) -> None:
        pid = child.pid  # afterwards the process object is closed
        if await child.wait() == 0:
            return
        # It was killed, and what its run had started is now a child of this process.
        kept = {self._forkserver.pid, self._forkserver.tracker_pid} - {None}
        left = await asyncio.to_thread(process_tree.end_orphans, kept, _END_SECONDS)
        await asyncio.to_thread(temporary.sweep)
        _log.warning("guardian of a run was killed", guardian=pid, processes_ended=len(left))


def _be_guardian(orders: socket.socket, work: socket.socket) -> None:
    guard(Line(orders, work))
