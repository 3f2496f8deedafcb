"""Ids sort by creation within a process, whatever the clock does."""

import time
import uuid

import pytest

from servicekit.ids import is_id, new_id


def test_ids_are_unique_and_ascending() -> None:
    ids = [new_id() for _ in range(20_000)]
    assert ids == sorted(set(ids))


def test_an_id_is_a_version_7_uuid_of_now() -> None:
    value = uuid.UUID(new_id())
    assert (value.version, value.variant) == (7, uuid.RFC_4122)
    assert abs((value.int >> 80) / 1000 - time.time()) < 60


def test_a_clock_that_steps_back_does_not_disturb_the_order(monkeypatch: pytest.MonkeyPatch) -> None:
    before = new_id()
    monkeypatch.setattr(time, "time_ns", lambda: 0)
    assert before < new_id() < new_id()


_ID = "01a1fde6-16ae-7287-a5f5-0467653372c9"


@pytest.mark.parametrize("text", ["", "1", "x" * 36, _ID.upper(), "{" + _ID + "}", _ID + " "])
def test_only_the_canonical_form_is_an_id(text: str) -> None:
    assert not is_id(text)
    assert is_id(new_id())
