"""What is known of a log from an earlier sweep: it is read on from there, unless it is another log by now."""

from __future__ import annotations

import json
import uuid

from worker.leftovers.delta_log import Known, read_log


def entry(number: int) -> str:
    return f"_delta_log/{number:020}.json"


def part() -> str:
    return f"part-00000-{uuid.uuid4()}-c000.snappy.parquet"


def content(path: str) -> bytes:
    return json.dumps({"add": {"path": path}}).encode()


def test_a_log_is_read_on_from_the_last_entry_that_is_known() -> None:
    parts, known, read = [part() for _ in range(4)], Known(), list[str]()
    log = {entry(number): content(path) for number, path in enumerate(parts[:3])}

    def open_entry(path: str) -> bytes:
        read.append(path)
        return log[path]

    assert set(read_log(log, open_entry, -1, known)) == set(parts[:3])
    read.clear()
    log[entry(3)] = content(parts[3])
    assert set(read_log(log, open_entry, -1, known)) == set(parts)
    assert read == [entry(2), entry(3)]
    read.clear()
    read_log(log, open_entry, -1, known)
    assert read == [entry(3)]


def test_a_log_that_was_restored_and_written_on_is_read_anew() -> None:
    """Its entries have numbers that were read before: unread, they would leave the data of the table to nobody."""
    old, new, known = [part() for _ in range(3)], [part() for _ in range(3)], Known()
    log = {entry(number): content(path) for number, path in enumerate(old)}
    read_log(log, log.__getitem__, -1, known)
    log = {entry(0): content(old[0])} | {entry(number): content(new[number - 1]) for number in range(1, 4)}
    assert set(new) <= set(read_log(log, log.__getitem__, -1, known))
