"""Run the computation of a run in separate processes; reports nothing to any service."""

from __future__ import annotations

import asyncio
import json
import os
import pickle
import sys
from collections.abc import Awaitable, Callable
from dataclasses import asdict
from typing import Self

import structlog
from google.protobuf.message import DecodeError

from optaic.run.v1 import run_report_service_pb2
from worker import environment, frames
from worker.child import Task
from worker.config import Settings
from worker.confinement import Confinement
from worker.data_removal import Removal
from worker.failures import Failure, describe_death, describe_unsupervised
from worker.frames import Frame, Kind
from worker.guardian import NOTHING_PRINTED, Line, Report, make_lines
from worker.limits import Limits
from worker.run_output import OutputLimits
from worker.source_probe import SourceProbe

_END_SECONDS = 15.0  # more than a guardian takes to give up
_AFTERMATH_SECONDS = 1.0
_REPORT_SECONDS = 5.0  # in which a guardian ends all that is left of a child, and reports
_LEAVE_SECONDS = 2.0
_LONGEST_RESULT = 4 * 1024 * 1024  # bytes; a larger one no service would take
_LONGEST_FAILURE = 16 * 1024 * 1024  # bytes; texts of a child that is ours are cut before
_LONGEST_PROGRESS = 16 * 1024  # bytes; a child that is ours says less
_UNKNOWN = Report(exit_code=None, tail="", fault="", dropped_bytes=0, left_processes=0)
_log = structlog.get_logger(__name__)

Result = run_report_service_pb2.CompleteRunRequest
OnProgress = Callable[[run_report_service_pb2.HeartbeatRequest], None]
StartGuardian = Callable[[], Awaitable[Line]]


async def start_guardian() -> Line:
    """Return a guardian in a new process, below Prefect's own worker."""
    ours, guardians = make_lines()
    spawning = asyncio.create_task(asyncio.to_thread(_spawn, guardians), name="spawn")
    try:
        # The thread uses the descriptors also when nobody waits for it any more.
        await asyncio.shield(spawning)
    except BaseException:
        ours.close()
        raise
    return ours


def _spawn(line: Line) -> None:
    """Start a guardian that has this line; let go of it here."""
    try:
        numbers = line.orders.fileno(), line.work.fileno()
        # New descriptors: only the intended process inherits them, no other process started in the meantime.
        given = [max(numbers) + place for place in (1, 2)]
        argv = [sys.executable, "-P", "-m", "worker.guardian", *map(str, given)]
        # It imports what this process can: a deployment may have more places than the environment names.
        inherited = environment.clean(os.environ, Settings())
        given_environment = {**inherited, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
        actions = [(os.POSIX_SPAWN_DUP2, *pair) for pair in zip(numbers, given, strict=True)]
        # Not by `subprocess`, which complains of children that outlive their parent, as a guardian may.
        os.posix_spawn(sys.executable, argv, given_environment, file_actions=actions)
    finally:
        line.close()


class Isolation:
    """The processes of one run. Entering the block starts them; they wait for a task. Leaving it ends them all."""

    def __init__(
        self,
        start: StartGuardian,
        limits: OutputLimits,
        confinement: Confinement | None = None,
        bounds: Limits | None = None,
    ) -> None:
        self._start = start
        self._limits = limits
        self._confinement = confinement or Confinement()
        self._bounds = bounds or Limits()
        self._reporting: asyncio.Task[Report] | None = None
        self._writers: list[asyncio.StreamWriter] = []
        self._is_answered = False
        # Of what was started it is known once the block is left, or the child has died.
        self.report = NOTHING_PRINTED

    async def __aenter__(self) -> Self:
        given = {
            **asdict(self._limits),
            "confinement": asdict(self._confinement),
            "bounds": asdict(self._bounds),
        }
        order = frames.pack(Kind.START, json.dumps(given).encode())
        line = await self._start()
        try:
            self._orders, orders = await asyncio.open_connection(sock=line.orders)
            self._writers.append(orders)
            self._work, work = await asyncio.open_connection(sock=line.work)
            self._writers.append(work)
        except BaseException:
            for writer in self._writers:
                writer.close()
            line.close()  # which a transport does later, or not at all if there is none
            raise
        self.report = _UNKNOWN
        self._reporting = asyncio.create_task(self._read_report(), name="guardian")
        orders.write(order)
        # Read before the task is sent: to send it to a child that was refused closes the line, with what was on it.
        self._first = asyncio.create_task(frames.read(self._work), name="first-message")
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._reporting is not None
        orders, work = self._writers
        if self._is_answered:  # then the child ends by itself, and its helpers with it
            await asyncio.wait({self._reporting}, timeout=_LEAVE_SECONDS)
        orders.write_eof()  # which is the order to end everything
        await asyncio.wait({self._reporting}, timeout=_END_SECONDS)
        if self._reporting.done():
            self.report = self._reporting.result()
        else:
            self._reporting.cancel()
            _log.error("processes of the run do not end", output=self._limits.file)
        self._first.cancel()
        await asyncio.wait({self._first})
        for writer in (orders, work):
            writer.close()

    async def compute(self, task: Task | Removal | SourceProbe, on_progress: OnProgress) -> Result | Failure:
        """Have the child do a task; what it answers, which is empty of a removal, or what ended it."""
        assert self._reporting is not None
        self._writers[1].write(frames.pack(Kind.TASK, await asyncio.to_thread(pickle.dumps, task)))
        answering = asyncio.create_task(self._read_answer(on_progress), name="child")
        try:
            await asyncio.wait({answering, self._reporting}, return_when=asyncio.FIRST_COMPLETED)
            if not answering.done():  # what it said last may still be on its way
                await asyncio.wait({answering}, timeout=_AFTERMATH_SECONDS)
            answer = answering.result() if answering.done() else None
            if answer is not None:
                self._is_answered = True
                if isinstance(answer, Failure) and await self._is_guardian_dead():
                    return describe_unsupervised(answer)
                return answer
            # It has closed its end: it is dying, or user code has closed what is not its own.
            await asyncio.wait({self._reporting}, timeout=_REPORT_SECONDS)
            if not self._reporting.done():
                closed = "the process closed the connection on which it returns its result"
                return Failure("PROCESS_EXITED", closed, "")
            self.report = self._reporting.result()
            if self.report.crossing:
                return Failure("LIMIT_EXCEEDED", self.report.crossing, "")
            return describe_death(self.report.exit_code, self.report.tail, self.report.fault)
        finally:
            answering.cancel()

    async def _is_guardian_dead(self) -> bool:
        """Return whether the guardian ended without a report, as the child has now ended or soon will."""
        assert self._reporting is not None
        await asyncio.wait({self._reporting}, timeout=_AFTERMATH_SECONDS)
        return self._reporting.done() and self._reporting.result() is _UNKNOWN

    async def _read_report(self) -> Report:
        frame = await frames.read(self._orders)
        return _UNKNOWN if frame is None else Report(**json.loads(frame[1]))

    async def _read_answer(self, on_progress: OnProgress) -> Result | Failure | None:
        frame = await self._first
        while frame is not None:
            try:
                answer = await _understand(frame, on_progress)
            except (DecodeError, ValueError) as error:
                return Failure(
                    "PluginInvalid", f"the child process sent something that is not a message: {error!r}", ""
                )
            if answer is not None:
                return answer
            frame = await frames.read(self._work)
        return None


async def _understand(frame: Frame, on_progress: OnProgress) -> Result | Failure | None:
    """Return the child's answer. Parse long texts in a thread, because this event loop also keeps the run's lease."""
    kind, payload = frame
    if kind == Kind.RESULT:
        if len(payload) > _LONGEST_RESULT:
            text = f"the run's report (mostly metrics) has {len(payload)} bytes; at most {_LONGEST_RESULT} are allowed"
            return Failure("TOO_LARGE", f"{text}; write large values to the output instead", "")
        return await asyncio.to_thread(Result.FromString, payload)
    if kind == Kind.FAILURE:
        if len(payload) > _LONGEST_FAILURE:
            raise ValueError(f"a failure of {len(payload)} bytes; {_LONGEST_FAILURE} are allowed")
        return await asyncio.to_thread(Failure.unpack, payload)
    if kind != Kind.PROGRESS:
        raise ValueError(f"a message of kind {kind}")
    if len(payload) > _LONGEST_PROGRESS:
        raise ValueError(f"progress of {len(payload)} bytes; {_LONGEST_PROGRESS} are allowed")
    on_progress(run_report_service_pb2.HeartbeatRequest.FromString(payload))
    return None
