"""What runs print and log: read in pages, followed live, and the traceback of a failed run."""

import asyncio
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from itertools import chain
from typing import Any

import grpc
import pytest
import pytest_asyncio
from google.protobuf.timestamp_pb2 import Timestamp

from devstack.postgres import Postgres
from optaic.run.v1 import run_log_pb2, run_pb2, run_report_service_pb2, run_service_pb2
from run_service.domain.log_lines import LogLine, Position, lines_after, micros_of
from run_service.use_cases import log_tails
from support.identities import caller
from support.polling import eventually
from support.run_service import RunningRunService, refused, run_service

NEVER = Timestamp()  # 1970: the run has printed nothing
BEGIN = datetime(2024, 1, 2, tzinfo=UTC)
DEBUG, INFO, WARNING, ERROR = 10, 20, 30, 40


def line(number: int, level: int = INFO, message: str = "") -> LogLine:
    return LogLine(micros_of(BEGIN) + number, level, "stdout", message or f"line {number}")


def stamp(moment: datetime) -> Timestamp:
    found = Timestamp()
    found.FromDatetime(moment)
    return found


@pytest_asyncio.fixture
async def service(postgres_server: Postgres, nats_url: str) -> AsyncIterator[RunningRunService]:
    """The service without loops; it looks for new lines often."""
    del postgres_server
    async with run_service(nats_url, log_poll_seconds=0.02, log_patience_seconds=0.2) as running:
        yield running


@pytest_asyncio.fixture
async def run(service: RunningRunService) -> run_report_service_pb2.StartRunResponse:
    """A running run."""
    submitted = await service.submit(service.instances.add())
    return await service.start(submitted.run_id)


def log_of(service: RunningRunService, run: run_report_service_pb2.StartRunResponse) -> list[LogLine]:
    found: list[LogLine] = service.orchestrator.logs.setdefault(run.run.orchestrator_run_id, [])
    return found


async def pages(service: RunningRunService, run_id: str, size: int, **fields: Any) -> list[list[str]]:
    """Return the messages of all pages."""
    request = run_service_pb2.ListRunLogsRequest(run_id=run_id, page_size=size, **fields)
    found = []
    while True:
        page = await service.runs.ListRunLogs(request)
        found.append([each.message for each in page.lines])
        request.page_token = page.next_page_token
        if not page.next_page_token:
            return found


class Follower:
    """One stream, read to its end in the background."""

    def __init__(self, service: RunningRunService, run_id: str, **fields: Any) -> None:
        request = run_service_pb2.WatchRunLogsRequest(run_id=run_id, **fields)
        self.messages: list[str] = []
        self.answers: list[run_service_pb2.WatchRunLogsResponse] = []
        self._stream = service.runs.WatchRunLogs(request)
        self.task = asyncio.create_task(self._read())

    async def _read(self) -> None:
        async for answer in self._stream:
            self.answers.append(answer)
            self.messages += [each.message for each in answer.lines]

    async def has(self, *messages: str) -> None:
        await eventually(lambda: self.messages == list(messages))

    def leave(self) -> None:
        self._stream.cancel()


async def test_a_log_is_read_in_pages(service: RunningRunService, run: Any) -> None:
    log_of(service, run).extend(line(number) for number in range(5))
    assert await pages(service, run.run.run_id, 2) == [["line 0", "line 1"], ["line 2", "line 3"], ["line 4"]]
    assert await pages(service, run.run.run_id, 0) == [[f"line {number}" for number in range(5)]]


async def test_lines_have_time_level_and_logger(service: RunningRunService, run: Any) -> None:
    levels = (0, 5, DEBUG, INFO, 25, WARNING, ERROR, 50, 99)
    log_of(service, run).extend(line(number, level) for number, level in enumerate(levels))
    answer = await service.runs.ListRunLogs(run_service_pb2.ListRunLogsRequest(run_id=run.run.run_id))
    assert [each.level for each in answer.lines] == [1, 1, 1, 2, 2, 3, 4, 5, 5]
    assert answer.lines[3].time.ToDatetime(UTC) == BEGIN + timedelta(microseconds=3)
    assert answer.lines[3].logger == "stdout"


async def test_a_log_is_read_by_level(service: RunningRunService, run: Any) -> None:
    levels = (5, DEBUG, INFO, WARNING, ERROR, 50)
    log_of(service, run).extend(line(number, level) for number, level in enumerate(levels))
    for level in run_log_pb2.LogLevel.values():
        found = await pages(service, run.run.run_id, 1, min_level=level)
        wanted = [f"line {number}" for number, each in enumerate(levels) if level < 2 or each >= 10 * level]
        assert list(chain.from_iterable(found)) == wanted


async def test_a_log_is_read_by_time(service: RunningRunService, run: Any) -> None:
    log_of(service, run).extend(line(number) for number in range(6))
    moments = [stamp(BEGIN + timedelta(microseconds=number)) for number in range(7)]
    assert await pages(service, run.run.run_id, 1, start_time=moments[2], end_time=moments[4]) == [
        ["line 2"],
        ["line 3"],
    ]
    assert await pages(service, run.run.run_id, 9, start_time=moments[4]) == [["line 4", "line 5"]]
    assert await pages(service, run.run.run_id, 9, end_time=moments[0]) == [[]]
    first, last = Timestamp(seconds=-62135596800), Timestamp(seconds=253402300799)
    assert await pages(service, run.run.run_id, 9, start_time=first, end_time=first) == [[]]
    assert len((await pages(service, run.run.run_id, 9, start_time=first, end_time=last))[0]) == 6


async def test_lines_of_one_time_are_read_once_each(service: RunningRunService, run: Any) -> None:
    same = [LogLine(micros_of(BEGIN), INFO, "stdout", message) for message in "abcde"]
    log_of(service, run).extend([*same, line(1)])
    assert list(chain.from_iterable(await pages(service, run.run.run_id, 2))) == [*"abcde", "line 1"]
    log_of(service, run)[:] = [line(0)] * 500 + [line(1)]  # delivered again and again, because no answer came
    assert list(chain.from_iterable(await pages(service, run.run.run_id, 2))) == ["line 0", "line 1"]
    follower = Follower(service, run.run.run_id)
    await follower.has("line 0", "line 1")
    follower.leave()


def test_positions_lie_between_all_lines() -> None:
    lines = [line(0), line(0, message="b"), line(0, message="a"), line(1), line(3)]
    placed = lines_after(lines, Position())
    assert [each.message for each, _ in placed] == ["a", "b", "line 0", "line 1", "line 3"]
    for number, (_, position) in enumerate(placed):
        rest = [each for each in lines if each.time >= position.time]
        assert lines_after(rest, position) == placed[number + 1 :]


async def test_a_run_that_never_started_has_no_log(service: RunningRunService) -> None:
    submitted = await service.submit(service.instances.add())
    assert await pages(service, submitted.run_id, 10) == [[]]
    follower = Follower(service, submitted.run_id)
    await service.cancel(submitted.run_id)
    await follower.task
    assert follower.messages == []


async def test_a_token_belongs_to_its_run_tenant_and_filter(service: RunningRunService, run: Any) -> None:
    log_of(service, run).extend(line(number) for number in range(3))
    request = run_service_pb2.ListRunLogsRequest(run_id=run.run.run_id, page_size=1)
    token = (await service.runs.ListRunLogs(request)).next_page_token
    other = await service.submit(service.instances.add())
    for fields in (
        {"run_id": other.run_id},
        {"min_level": run_log_pb2.LOG_LEVEL_INFO},
        {"start_time": NEVER, "end_time": stamp(BEGIN)},
    ):
        given = {"run_id": run.run.run_id, "page_size": 1, "page_token": token} | fields
        async with refused("INVALID_PAGE_TOKEN"):
            await service.runs.ListRunLogs(run_service_pb2.ListRunLogsRequest(**given))
    async with refused("INVALID_PAGE_TOKEN"):
        watch = run_service_pb2.WatchRunLogsRequest(run_id=run.run.run_id, position=token)
        await service.runs.WatchRunLogs(watch).read()


async def test_the_log_of_another_tenant_is_not_found(service: RunningRunService, run: Any) -> None:
    log_of(service, run).append(line(0))
    theirs, run_id = caller("maintainer", "other"), run.run.run_id
    async with refused("RUN_NOT_FOUND"):
        await service.runs.ListRunLogs(run_service_pb2.ListRunLogsRequest(run_id=run_id), metadata=theirs)
    async with refused("RUN_NOT_FOUND"):
        watch = run_service_pb2.WatchRunLogsRequest(run_id=run_id)
        await service.runs.WatchRunLogs(watch, metadata=theirs).read()
    async with refused("RUN_NOT_FOUND"):
        get = run_service_pb2.GetRunTracebackRequest(run_id=run_id)
        await service.runs.GetRunTraceback(get, metadata=theirs)


async def test_a_log_cannot_be_read_while_prefect_is_away(service: RunningRunService, run: Any) -> None:
    service.orchestrator.is_down = True
    async with refused("DEPENDENCY_UNAVAILABLE"):
        await service.runs.ListRunLogs(run_service_pb2.ListRunLogsRequest(run_id=run.run.run_id))
    follower = Follower(service, run.run.run_id)
    with pytest.raises(grpc.aio.AioRpcError) as ended:
        await follower.task
    assert ended.value.code() is grpc.StatusCode.UNAVAILABLE


async def test_a_short_absence_of_prefect_ends_no_stream(service: RunningRunService, run: Any) -> None:
    follower = Follower(service, run.run.run_id)
    log_of(service, run).append(line(0))
    await follower.has("line 0")
    service.orchestrator.is_down = True
    await asyncio.sleep(0.1)  # half of the time that a stream waits for Prefect
    service.orchestrator.is_down = False
    log_of(service, run).append(line(1))
    await follower.has("line 0", "line 1")
    follower.leave()


async def test_a_stream_ends_after_the_last_line(service: RunningRunService, run: Any) -> None:
    follower = Follower(service, run.run.run_id)
    for number in range(3):
        log_of(service, run).append(line(number))
        await follower.has(*(f"line {each}" for each in range(number + 1)))
    last = stamp(BEGIN + timedelta(microseconds=7))
    await service.complete(run.run.run_id, run.fencing_token, last_log_time=last)
    await asyncio.sleep(0.1)  # several looks, in which the last line is not there yet
    assert not follower.task.done()
    log_of(service, run).append(line(7))
    await follower.task
    assert follower.messages[-1] == "line 7"
    assert not any(answer.is_incomplete for answer in follower.answers)
    late = Follower(service, run.run.run_id)
    await late.task
    assert late.messages == follower.messages


async def test_a_stream_of_a_run_that_printed_nothing_ends_with_the_run(
    service: RunningRunService, run: Any
) -> None:
    follower = Follower(service, run.run.run_id)
    await service.complete(run.run.run_id, run.fencing_token, last_log_time=NEVER)
    await follower.task
    assert follower.messages == []


async def test_a_stream_says_that_lines_are_missing(service: RunningRunService, run: Any) -> None:
    log_of(service, run).append(line(0))
    await service.complete(run.run.run_id, run.fencing_token, last_log_time=stamp(BEGIN + timedelta(days=1)))
    follower = Follower(service, run.run.run_id)
    await follower.has("line 0")
    service.clock.advance(31)
    await follower.task
    assert follower.answers[-1].is_incomplete


async def test_a_stream_of_a_killed_worker_ends_soon_after_the_run(
    service: RunningRunService, run: Any
) -> None:
    follower = Follower(service, run.run.run_id)
    log_of(service, run).append(line(0))
    await service.cancel(run.run.run_id)
    await follower.has("line 0")
    assert not follower.task.done()
    service.clock.advance(4)
    await follower.task
    assert not follower.answers[-1].is_incomplete


async def test_a_stream_resumes_without_doubling(service: RunningRunService, run: Any) -> None:
    lines = [LogLine(micros_of(BEGIN) + number // 3, INFO, "stdout", f"{number:02}") for number in range(30)]
    log_of(service, run).extend(lines[:17])
    read: list[str] = []
    position = ""
    for end in (17, 18, 25, 30):
        log_of(service, run)[:] = lines[:end]
        follower = Follower(service, run.run.run_id, position=position)
        await follower.has(*(each.message for each in lines[len(read) : end]))
        follower.leave()
        read += follower.messages
        position = next(each.position for each in reversed(follower.answers) if each.lines)
    assert read == [each.message for each in lines]


async def test_streams_of_one_run_share_their_looks(service: RunningRunService, run: Any) -> None:
    followers = [Follower(service, run.run.run_id) for _ in range(20)]
    for number in range(3):
        log_of(service, run).append(line(number))
        for follower in followers:
            await follower.has(*(f"line {each}" for each in range(number + 1)))
    before = service.orchestrator.log_reads
    await asyncio.sleep(0.4)  # five looks of one tail, since nothing comes
    assert service.orchestrator.log_reads - before < 15
    for follower in followers:
        follower.leave()
    await eventually(lambda: not service.app.deps.tails._tails)
    before = service.orchestrator.log_reads
    await asyncio.sleep(0.1)  # one look would come within this
    assert service.orchestrator.log_reads == before


async def test_who_comes_late_or_reads_slowly_gets_every_line(
    service: RunningRunService, run: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(log_tails, "_MOST_LINES", 5)
    first = Follower(service, run.run.run_id)
    log_of(service, run).extend(line(number) for number in range(950))
    every = [f"line {number}" for number in range(950)]
    await first.has(*every)
    second = Follower(service, run.run.run_id)
    await second.has(*every)
    log_of(service, run).append(line(950))
    for follower in (first, second):
        await follower.has(*every, "line 950")
        follower.leave()


async def test_a_stream_has_the_levels_that_it_asks_for(service: RunningRunService, run: Any) -> None:
    log_of(service, run).extend([line(0, DEBUG), line(1, ERROR), line(2), line(3, WARNING)])
    follower = Follower(service, run.run.run_id, min_level=run_log_pb2.LOG_LEVEL_WARNING)
    await follower.has("line 1", "line 3")
    await service.complete(run.run.run_id, run.fencing_token, last_log_time=NEVER)
    await follower.task


async def test_long_lines_come_in_messages_that_any_client_takes(
    service: RunningRunService, run: Any
) -> None:
    log_of(service, run).extend(line(number, message=f"{number:03}" + "ä" * 20_000) for number in range(150))
    await service.complete(run.run.run_id, run.fencing_token, last_log_time=NEVER)
    follower = Follower(service, run.run.run_id)
    await follower.task
    assert [each[:3] for each in follower.messages] == [f"{number:03}" for number in range(150)]
    assert max(answer.ByteSize() for answer in follower.answers) < 4_000_000
    found = await pages(service, run.run.run_id, 1000)
    assert len(found) > 1
    assert len(list(chain.from_iterable(found))) == 150


async def _fail(service: RunningRunService, run: Any, **fields: Any) -> run_pb2.Run:
    request = run_report_service_pb2.FailRunRequest(
        run_id=run.run.run_id,
        fencing_token=run.fencing_token,
        credential=service.credentials[run.run.run_id],
        **fields,
    )
    failed: run_pb2.Run = await service.reports.FailRun(request)
    assert await service.reports.FailRun(request) == failed
    return failed


async def test_the_traceback_of_a_failed_run_is_kept(service: RunningRunService, run: Any) -> None:
    error = run_pb2.RunError(type="ValueError", message="no")
    text = "Traceback postgresql://user:hunter22@host/db " + "x" * 60_000
    await _fail(service, run, error=error, traceback=text)
    request = run_service_pb2.GetRunTracebackRequest(run_id=run.run.run_id)
    found = (await service.runs.GetRunTraceback(request)).traceback
    assert found == text.replace("hunter22", "***")


async def test_a_run_without_a_traceback_has_an_empty_one(service: RunningRunService, run: Any) -> None:
    request = run_service_pb2.GetRunTracebackRequest(run_id=run.run.run_id)
    assert not (await service.runs.GetRunTraceback(request)).traceback


async def test_a_failed_run_shows_its_last_lines(service: RunningRunService, run: Any) -> None:
    lines = ["password=hunter22", *("y" * 499 for _ in range(10))]
    error = run_pb2.RunError(type="ValueError", message="no", last_lines=lines)
    failed = await _fail(service, run, error=error)
    assert list(failed.error.last_lines) == ["y" * 499] * 8
    assert (await service.get(run.run.run_id)).error == failed.error


async def test_the_last_lines_of_a_failed_run_have_no_secrets(service: RunningRunService, run: Any) -> None:
    error = run_pb2.RunError(type="ValueError", message="no", last_lines=["password=hunter22", "done"])
    failed = await _fail(service, run, error=error)
    assert list(failed.error.last_lines) == ["password=***", "done"]
