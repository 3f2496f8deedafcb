"""Answer what runs printed and logged, and where they were when they failed."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing

from optaic.rules.pages import DEFAULT_SIZE
from optaic.run.v1 import run_log_pb2, run_service_pb2
from run_service.domain.errors import logs_unavailable, run_not_found
from run_service.domain.log_lines import (
    LogLine,
    PlacedLine,
    Position,
    lines_after,
    micros_of,
    moment_of,
)
from run_service.ports import OrchestratorRefusedError, OrchestratorUnavailableError
from run_service.store import runs as run_store
from run_service.store import tracebacks
from run_service.store.records import datetime_of, time_of
from run_service.use_cases.dependencies import Dependencies
from servicekit import pages
from servicekit.context import RequestContext

_LEVEL_STEP = 10  # from one level to the next, as Python's `logging` counts
_LOWEST, _HIGHEST = run_log_pb2.LOG_LEVEL_DEBUG, run_log_pb2.LOG_LEVEL_CRITICAL


async def list_run_logs(
    deps: Dependencies, context: RequestContext, request: run_service_pb2.ListRunLogsRequest
) -> run_service_pb2.ListRunLogsResponse:
    """Return a page of a run's log, in order of time.

    Raises:
        NotFoundError: RUN_NOT_FOUND.
        UnavailableError: DEPENDENCY_UNAVAILABLE: the orchestrator does not answer.
    """
    start = micros_of(datetime_of(request.start_time)) if request.HasField("start_time") else 0
    end = micros_of(datetime_of(request.end_time)) if request.HasField("end_time") else None
    tokens = pages.PageTokens(
        deps.signer, context.tenant_id, "ListRunLogs", request.run_id, request.min_level, start, end
    )
    position = _position(tokens, request.page_token) or Position(max(0, start))
    size = request.page_size or DEFAULT_SIZE
    async with deps.database.read(context.tenant_id) as connection:
        record = await run_store.get_run(connection, context.tenant_id, request.run_id)
    if record is None:
        raise run_not_found(request.run_id)
    response = run_service_pb2.ListRunLogsResponse()
    if not record.run.orchestrator_run_id or (end is not None and end <= position.time):
        return response
    try:
        found = await deps.tails.orchestrator.list_log_lines(
            record.run.orchestrator_run_id,
            start=moment_of(position.time),
            end=None if end is None else moment_of(end),
            min_level=_lowest(request.min_level),
            limit=position.number + size + 1,
        )
    except (OrchestratorUnavailableError, OrchestratorRefusedError) as error:
        raise logs_unavailable() from error
    lines = lines_after(found, position)
    page = _fit(lines, size)
    response.lines.extend(_message(line) for line, _ in page)
    if len(lines) > len(page) or len(found) > position.number + size:
        # Copies of one line only: continue after its time.
        following = page[-1][1] if page else Position(position.time + 1)
        response.next_page_token = tokens.encode(following._asdict())
    return response


async def watch_run_logs(
    deps: Dependencies, context: RequestContext, request: run_service_pb2.WatchRunLogsRequest
) -> AsyncGenerator[run_service_pb2.WatchRunLogsResponse, None]:
    """Yield a run's log as it comes; raises as `list_run_logs`."""
    tokens = pages.PageTokens(
        deps.signer, context.tenant_id, "WatchRunLogs", request.run_id, request.min_level
    )
    position = _position(tokens, request.position) or Position()
    lowest = _lowest(request.min_level)
    followed = deps.tails.follow(
        context.tenant_id, request.run_id, position, lambda line: line.level >= lowest
    )
    async with aclosing(followed) as batches:
        async for batch in batches:
            rest = batch.lines
            while len(page := _fit(rest, len(rest))) < len(rest):
                yield _batch(tokens, page, page[-1][1])
                rest = rest[len(page) :]
            yield _batch(tokens, page, batch.position, is_incomplete=batch.is_incomplete)


async def get_run_traceback(
    deps: Dependencies, context: RequestContext, request: run_service_pb2.GetRunTracebackRequest
) -> run_service_pb2.GetRunTracebackResponse:
    """Return the traceback of a failed run; it is empty if the run has none.

    Raises:
        NotFoundError: RUN_NOT_FOUND.
    """
    async with deps.database.read(context.tenant_id) as connection:
        record = await run_store.get_run(connection, context.tenant_id, request.run_id)
        if record is None:
            raise run_not_found(request.run_id)
        text = await tracebacks.get_traceback(connection, context.tenant_id, request.run_id)
    return run_service_pb2.GetRunTracebackResponse(traceback=text)


def _position(tokens: pages.PageTokens, token: str) -> Position | None:
    found = tokens.decode(token)
    return Position(int(found["time"]), int(found["number"])) if found else None


def _lowest(level: run_log_pb2.LogLevel.ValueType) -> int:
    """Return the lowest number, as Python's `logging` counts, that belongs to a level."""
    return level * _LEVEL_STEP if level > _LOWEST else 0


def _fit(lines: Sequence[PlacedLine], size: int) -> Sequence[PlacedLine]:
    return pages.fit(lines, size, lambda each: len(f"{each[0].message}{each[0].logger}".encode()) + 32)


def _message(line: LogLine) -> run_log_pb2.LogLine:
    level = min(_HIGHEST, max(_LOWEST, line.level // _LEVEL_STEP))
    return run_log_pb2.LogLine(
        time=time_of(moment_of(line.time)),
        level=level,  # type: ignore[arg-type] # a number of the enum
        logger=line.logger,
        message=line.message,
    )


def _batch(
    tokens: pages.PageTokens, lines: Sequence[PlacedLine], position: Position, *, is_incomplete: bool = False
) -> run_service_pb2.WatchRunLogsResponse:
    return run_service_pb2.WatchRunLogsResponse(
        lines=(_message(line) for line, _ in lines),
        position=tokens.encode(position._asdict()),
        is_incomplete=is_incomplete,
    )
