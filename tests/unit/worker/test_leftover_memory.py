"""What a worker keeps of logs between two sweeps is bounded: the log that was read longest ago is read again."""

from __future__ import annotations

from worker.leftovers.delta_log import Known
from worker.leftovers.memory import Memory


def known(count: int) -> Known:
    return Known(count, {str(number) for number in range(count)})


def test_the_log_that_was_read_longest_ago_goes() -> None:
    memory = Memory(most_parts=10)
    memory.keep("a", known(3))
    memory.keep("b", known(3))
    memory.keep("a", memory.recall("a"))
    memory.keep("c", known(3))
    assert [memory.recall(table).entries for table in "abc"] == [3, 0, 3]


def test_a_log_that_has_no_room_is_not_kept() -> None:
    memory = Memory(most_parts=10)
    memory.keep("a", known(3))
    memory.keep("b", known(10))
    assert [memory.recall(table).entries for table in "ab"] == [0, 0]
    memory.keep("c", known(9))
    assert memory.recall("c").entries == 9


def test_a_log_that_has_grown_counts_once() -> None:
    memory = Memory(most_parts=10)
    kept = known(3)
    memory.keep("a", kept)
    kept.parts |= {"more", "and more"}
    memory.keep("a", kept)
    memory.keep("b", known(3))
    assert [memory.recall(table).entries for table in "ab"] == [3, 3]
