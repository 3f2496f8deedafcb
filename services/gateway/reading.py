"""Have a table read by a process of its own, which is ended when its time is over or its caller has gone."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import structlog

from gateway import errors

_MODULE = "gateway.table_reader"
_MOST_HEADER_BYTES = 4 * 1024 * 1024  # names and types of all columns
_PIECE_BYTES = 256 * 1024
_END_SECONDS = 5.0
# One thread of each library: reads share the machine with calls. What this process knows of secrets stays here.
_ENVIRONMENT = {
    "POLARS_MAX_THREADS": "1",
    "OMP_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
    "ARROW_DEFAULT_MEMORY_POOL": "system",
}
_log = structlog.get_logger(__name__)


@dataclass(frozen=True)
class Answer:
    """The answer of the process: what it says of the content, and the content."""

    header: Mapping[str, Any]
    content: bytes


async def read_table(job: Mapping[str, Any], seconds: float, most_bytes: int) -> Answer:
    """Return what a job gives.

    Raises:
        DomainError: The data is refused, or cannot be read; READ_TOO_LARGE, READ_TIMEOUT.
    """
    environment = {name: value for name, value in os.environ.items() if not name.startswith("OPTAIC_")}
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        _MODULE,
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.DEVNULL,
        env={**environment, **_ENVIRONMENT},
    )
    try:
        async with asyncio.timeout(seconds):
            output = await _exchange(process, json.dumps(job).encode(), _MOST_HEADER_BYTES + most_bytes)
            code = await process.wait()
    except TimeoutError:
        raise errors.read_timeout(seconds) from None
    finally:
        await _end(process)
    if len(output) > _MOST_HEADER_BYTES + most_bytes:
        raise errors.read_too_large()
    return _judge(output, code, seconds)


async def _exchange(process: asyncio.subprocess.Process, job: bytes, most: int) -> bytes:
    """Send the job, and return what comes, as far as it may come."""
    assert process.stdin is not None
    assert process.stdout is not None
    output = bytearray()
    try:
        process.stdin.write(job)
        await process.stdin.drain()
        process.stdin.close()
    except (BrokenPipeError, ConnectionResetError):
        pass  # it has ended before it had read the job; its answer says no more
    while len(output) <= most and (piece := await process.stdout.read(_PIECE_BYTES)):
        output += piece
    if len(output) > most:
        process.kill()
    return bytes(output)


async def _end(process: asyncio.subprocess.Process) -> None:
    if process.returncode is None:
        process.kill()
        try:
            async with asyncio.timeout(_END_SECONDS):
                await process.wait()
        except TimeoutError:
            _log.warning("a reader hangs in its storage", pid=process.pid)


def _judge(output: bytes, code: int, seconds: float) -> Answer:
    if code in {-signal.SIGXCPU, -signal.SIGKILL}:
        raise errors.read_timeout(seconds)
    if code == -signal.SIGABRT:  # a library that gets no memory ends the process so
        raise errors.read_too_large()
    line, _, content = output.partition(b"\n")
    try:
        header = json.loads(line) if not code else {"reason": "READER_FAILED", "cause": f"exit code {code}"}
    except ValueError:
        header = {"reason": "READER_FAILED", "cause": "no answer"}
    if cause := header.get("cause"):
        _log.warning("a table was not read", reason=header["reason"], cause=cause)
    if "reason" in header:
        raise errors.table_refused(
            header["reason"], str(header.get("message", "")), str(header.get("field", ""))
        )
    return Answer(header, content)
