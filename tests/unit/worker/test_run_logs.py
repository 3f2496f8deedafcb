"""The log of a run: lines and records of what it prints, the file on their way, and their delivery."""

from __future__ import annotations

import asyncio
import json
import logging
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

from servicekit.ids import new_id
from support.polling import eventually
from worker import log_delivery
from worker.log_delivery import LinesRefusedError, LogDelivery, delivering
from worker.log_spool import Spool, TimedLine
from worker.run_lines import Line, PrintedLines, pack, split
from worker.run_output import OutputLimits, RunOutput

FLOW_RUN = "8d5f0a34-55f5-4ef8-8d36-6a9a4a3c9a01"


def printed(message: str) -> Line:
    return Line(logging.INFO, "stdout", message)


def lines_of(*texts: str) -> list[str]:
    lines = PrintedLines()
    found = [line.message for text in texts for line in lines.add(text)]
    return found + [line.message for line in lines.end()]


@pytest.mark.parametrize(
    ("texts", "lines"),
    [
        (["one\ntwo\n"], ["one", "two"]),
        (["on", "e\ntw", "o"], ["one", "two"]),
        (["\n\n"], ["", ""]),
        (["one\r\ntwo\r\n"], ["one", "two"]),
        (["one\r", "\ntwo"], ["one", "two"]),
        (["  1%\r 50%\r100%\ndone\n"], ["100%", "done"]),
        (["  1%\r", " 50%\r", "100%\r", "\n", "x"], ["100%", "x"]),
        (["\r  1%", "\r 50%", "\r100%", "\n"], ["100%"]),
        (["a\rb"], ["b"]),
        (["\udcff\n"], ["?"]),
    ],
)
def test_lines_are_what_a_terminal_shows(texts: list[str], lines: list[str]) -> None:
    assert lines_of(*texts) == lines


def test_a_progress_bar_without_an_end_takes_no_room() -> None:
    lines = PrintedLines()
    for number in range(10_000):
        assert list(lines.add(f"\r{number}" + "x" * 100)) == []
    assert len(lines._line) < 300
    assert [line.message[:4] for line in lines.end()] == ["9999"]


@pytest.mark.parametrize(
    "line",
    [
        Line(logging.WARNING, "a.b", "two\nlines\r\x1e and signs ä 漢 🚀"),
        Line(0, "", ""),
        Line(logging.CRITICAL, "x", "\x00"),
    ],
)
def test_a_record_is_read_as_it_was_packed(line: Line) -> None:
    text = f"before{pack(line).decode()}after\n"
    assert list(split(text)) == ["before", line, "after\n"]


@pytest.mark.parametrize(
    "forged", ["{}", "[]", "[1,2,3]", '["20","a","b"]', "[20,null,1]", "[" * 10_000, "x", '[20,"a"', ""]
)
def test_what_is_no_record_is_printed(forged: str) -> None:
    assert list(split(f"\x1e{forged}\nnext\n")) == [f"\x1e{forged}\n", "next\n"]


def test_a_forged_record_has_a_level_and_a_logger_of_bounded_size() -> None:
    text = "\x1e" + json.dumps([10**30, "l" * 1000, "\ud800"]) + "\n"
    assert list(split(text)) == [Line(99, "l" * 128, "\\ud800")]


def test_long_messages_are_cut_and_say_so() -> None:
    fitted = Line(logging.INFO, "stdout", "a" * 20_000 + "\0" + "z" * 20_000).fitted()
    assert len(fitted.message) <= 16_000
    assert "characters left out" in fitted.message
    assert (fitted.message[0], fitted.message[-1]) == ("a", "z")
    assert "\0" not in Line(logging.INFO, "stdout", "a\0b").fitted().message


def output(folder: Path, *chunks: bytes, log_bytes: int = 1_000_000) -> tuple[RunOutput, Spool]:
    """Write what a run prints; return its output and the spool."""
    folder.mkdir(mode=0o700, exist_ok=True)
    spool = Spool.create(folder, new_id(), FLOW_RUN)
    log = str(spool.path)
    given = OutputLimits(str(folder / f"{new_id()}.log"), 10_000_000, 10, log=log, log_bytes=log_bytes)
    written = RunOutput(given)
    for chunk in chunks:
        written.write(chunk)
    written.close()
    return written, spool


def read(spool: Spool) -> list[TimedLine]:
    lines: list[TimedLine] = []
    while (found := spool.read(10_000))[1]:
        lines += found[0]
        spool.mark_sent(found[1])
    return lines


def test_prints_and_records_are_kept_in_order_with_their_level(tmp_path: Path) -> None:
    record = Line(logging.ERROR, "my.code", "no\nfile")
    written, spool = output(tmp_path / "o", b"one\nhalf", pack(record), b"two\n")
    assert [each.line for each in read(spool)] == [printed("one"), printed("half"), record, printed("two")]
    assert written.tail == "one\nhalf\nERROR my.code: no\nfile\ntwo"


def test_each_line_has_a_later_time_than_the_one_before(tmp_path: Path) -> None:
    written, spool = output(tmp_path / "o", b"x\n" * 5000)
    times = [each.time for each in read(spool)]
    assert len(set(times)) == 5000
    assert times == sorted(times)
    assert written.log.last_time == times[-1]


def test_secrets_are_hidden_in_lines_and_records(tmp_path: Path) -> None:
    record = pack(Line(logging.INFO, "x", 'connect to postgresql://u:"hunter22"@host/db'))
    _, spool = output(tmp_path / "o", b"password=hunter22\n", record, b"token: abc", b"d1234\n")
    text = "\n".join(each.line.message for each in read(spool))
    assert "hunter22" not in text
    assert "d1234" not in text
    assert text.count("***") == 3


def test_a_log_is_bounded_and_says_where_it_ends_and_how_much_is_missing(tmp_path: Path) -> None:
    written, spool = output(tmp_path / "o", b"0123456789\n" * 100, log_bytes=200)
    lines = [each.line for each in read(spool)]
    kept = [line for line in lines if line.logger == "stdout"]
    assert len(kept) == 200 // len("0123456789stdout")
    notes = [line for line in lines if line.logger == "optaic"]
    assert [note.level for note in notes] == [logging.WARNING] * 2
    assert "limit of 200 bytes" in notes[0].message
    assert f"{100 - len(kept)} further lines" in notes[1].message
    assert written.log.lost == 100 - len(kept)
    assert "0123456789" in written.tail


def test_a_run_without_a_log_prints_into_its_file(tmp_path: Path) -> None:
    (tmp_path / "o").mkdir(mode=0o700)
    written = RunOutput(OutputLimits(str(tmp_path / "o" / f"{new_id()}.log"), 1000, 10))
    written.write(b"one\n")
    written.close()
    assert (written.tail, written.log.lost, written.log.last_time) == ("one", 0, 0)


def test_lines_that_cannot_be_written_are_counted(tmp_path: Path) -> None:
    (tmp_path / "o").mkdir(mode=0o700)
    limits = OutputLimits(
        str(tmp_path / "o" / f"{new_id()}.log"), 1000, 10, log=str(tmp_path / "no"), log_bytes=99
    )
    written = RunOutput(limits)
    written.write(b"one\ntwo\n")
    written.close()
    assert (written.tail, written.log.lost, written.log.last_time) == ("one\ntwo", 2, 0)


def test_a_line_that_was_written_in_part_is_skipped(tmp_path: Path) -> None:
    _, spool = output(tmp_path / "o", b"one\n")
    with spool.path.open("ab") as file:
        file.write(b'[1, 20, "stdout", "tor\n[99, 20, "stdout", "whole"]\n[1, 2')
    assert [each.line.message for each in read(spool)] == ["one", "whole"]


def test_a_file_of_a_dead_worker_is_taken_over_where_it_stopped(tmp_path: Path) -> None:
    folder = tmp_path / "o"
    _, spool = output(folder, b"one\n")
    assert len(read(spool)) == 1
    with spool.path.open("ab") as file:
        file.write(b'[99, 20, "stdout", "two"]\n')
    (folder / "foreign.lines").write_bytes(b"no spool")
    assert Spool.list_left(folder) == [], "its worker lives"
    os.close(spool._descriptor)
    (left,) = Spool.list_left(folder)
    assert left.is_finished
    assert left.flow_run_id == FLOW_RUN
    assert [each.line.message for each in read(left)] == ["two"]
    left.remove()
    assert not left.path.exists()


class Store:
    """An orchestrator that takes lines, or does not."""

    def __init__(self) -> None:
        self.lines: list[tuple[str, TimedLine]] = []
        self.failure: Exception | None = None
        self.delay = 0.0

    @property
    def messages(self) -> list[str]:
        return [each.line.message for _, each in self.lines]

    async def send(self, flow_run_id: str, lines: Sequence[TimedLine]) -> None:
        await asyncio.sleep(self.delay)  # several attempts take this time
        if self.failure is not None:
            raise self.failure
        self.lines += [(flow_run_id, line) for line in lines]


async def _print(delivery: LogDelivery, folder: Path, *chunks: bytes, store: Store | None = None) -> None:
    async with delivery.keep(new_id(), FLOW_RUN) as path:
        limits = OutputLimits(str(folder / f"{new_id()}.log"), 1_000_000, 10, log=path, log_bytes=1_000_000)
        written = RunOutput(limits)
        for chunk in chunks:
            written.write(chunk)
            if store is not None:
                await eventually(lambda: store.messages[-1:] == [chunk.decode().strip()])  # noqa: B023 - awaited here
        written.close()


async def test_lines_are_delivered_while_the_run_goes_on(tmp_path: Path) -> None:
    store = Store()
    async with delivering(tmp_path / "unsent", store.send, 1) as delivery:
        await _print(delivery, tmp_path / "o", b"one\n", b"two\n", store=store)
        await eventually(lambda: not list((tmp_path / "unsent").iterdir()))
    assert store.messages == ["one", "two"]
    assert {flow_run_id for flow_run_id, _ in store.lines} == {FLOW_RUN}


async def test_many_lines_come_in_batches_of_bounded_size(tmp_path: Path) -> None:
    store = Store()
    async with delivering(tmp_path / "unsent", store.send, 5) as delivery:
        await _print(delivery, tmp_path / "o", *(b"%06d" % n + b"x" * 94 + b"\n" for n in range(8000)))
    assert [message[:6] for message in store.messages] == [f"{n:06}" for n in range(8000)]


async def test_an_orchestrator_that_takes_few_lines_in_time_gets_few_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(log_delivery, "_PAUSE", 0.02)
    store, sizes = Store(), []

    async def send(flow_run_id: str, lines: Sequence[TimedLine]) -> None:
        sizes.append(len(lines))
        if len(lines) > 100:
            raise TimeoutError
        await store.send(flow_run_id, lines)

    async with delivering(tmp_path / "unsent", send, 5) as delivery:
        await _print(delivery, tmp_path / "o", *(b"%d\n" % n for n in range(1000)))
        await eventually(lambda: not list((tmp_path / "unsent").iterdir()))
        assert store.messages == [str(n) for n in range(1000)]
        assert sum(size > 100 for size in sizes) < 10
        sizes.clear()
        await _print(delivery, tmp_path / "o", *(b"%d\n" % n for n in range(1000)))
        await eventually(lambda: any(size > 100 for size in sizes))  # it may be quicker by now


async def test_lines_wait_while_the_orchestrator_is_away(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(log_delivery, "_PAUSE", 0.02)
    store = Store()
    store.failure = OSError("down")
    async with delivering(tmp_path / "unsent", store.send, 1) as delivery:
        await _print(delivery, tmp_path / "o", b"one\n")
        await _print(delivery, tmp_path / "o", b"two\n")
        await asyncio.sleep(0.1)  # several attempts to deliver take this time
        assert store.lines == []
        store.failure = None
        await eventually(lambda: sorted(store.messages) == ["one", "two"])


async def test_what_was_not_delivered_is_delivered_by_the_next_worker(tmp_path: Path) -> None:
    store = Store()
    store.failure = TimeoutError()
    folder = tmp_path / "unsent"
    program = (
        "import sys; from pathlib import Path; from worker.log_spool import Spool, SpoolWriter; from worker.run_lines import Line\n"
        f"spool = Spool.create(Path({str(folder)!r}), 'run', {FLOW_RUN!r})\n"
        "writer = SpoolWriter(str(spool.path), 1000)\n"
        "writer.add(Line(20, 'stdout', 'of a dead worker'))\n"
        "import os; os._exit(9)"
    )
    folder.mkdir(mode=0o700)
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    done = await asyncio.to_thread(
        subprocess.run, [sys.executable, "-c", program], env=environment, check=False
    )
    assert done.returncode == 9
    async with delivering(folder, store.send, 0.1) as delivery:
        await _print(delivery, tmp_path / "o", b"one\n")
        await eventually(lambda: len(delivery._spools) == 2)
    assert len(list(folder.iterdir())) == 2
    store.failure = None
    for spool in list(delivery._spools):
        os.close(spool._descriptor)  # as the death of the process does
    async with delivering(folder, store.send, 1):
        await eventually(lambda: sorted(store.messages) == ["of a dead worker", "one"])
    assert list(folder.iterdir()) == []


async def test_lines_that_are_refused_are_counted_and_block_no_others(tmp_path: Path) -> None:
    store = Store()

    async def send(flow_run_id: str, lines: Sequence[TimedLine]) -> None:
        if any("bad" in each.line.message for each in lines):
            raise LinesRefusedError("422")
        await store.send(flow_run_id, lines)

    async with delivering(tmp_path / "unsent", send, 1) as delivery:
        await _print(delivery, tmp_path / "o", b"bad\nworse\n")
        await _print(delivery, tmp_path / "o", b"good\n")
    assert sorted(store.messages) == ["[optaic: 2 lines were lost, because they were refused]", "good"]


async def test_no_run_waits_for_a_log_that_cannot_be_kept(tmp_path: Path) -> None:
    (tmp_path / "unsent").write_text("no folder")
    async with (
        delivering(tmp_path / "unsent", Store().send, 1) as delivery,
        delivery.keep("run", FLOW_RUN) as path,
    ):
        assert path == ""


async def test_its_folders_are_for_the_worker_alone(tmp_path: Path) -> None:
    umask = os.umask(0)
    folder = tmp_path / "output" / "unsent"
    try:
        async with delivering(folder, Store().send, 1) as delivery, delivery.keep("run", FLOW_RUN):
            (file,) = folder.iterdir()
            assert file.stat().st_mode & 0o777 == 0o600
    finally:
        os.umask(umask)
    assert [each.stat().st_mode & 0o777 for each in (folder, folder.parent)] == [0o700, 0o700]


async def test_too_many_files_are_given_up_oldest_first(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(log_delivery, "_MOST_LEFT", 2)
    store = Store()
    store.failure = OSError("down")
    async with delivering(tmp_path / "unsent", store.send, 0.5) as delivery:
        for number in range(4):
            await _print(delivery, tmp_path / "o", b"%d\n" % number)
        await delivery.drain(1)
        assert len(list((tmp_path / "unsent").iterdir())) == 2
        store.failure = None
    assert store.messages == ["2", "3"]
