"""When a run for a range of dates counts as one without: over the product of ranges, changes and affected dates."""

from __future__ import annotations

import itertools

import pytest

from optaic.run.v1 import run_pb2
from run_service.domain.ranges import covers_changes

DAYS = range(1, 6)
SPANS = [(start, end) for start in DAYS for end in DAYS if start <= end]


def _day(number: int) -> str:
    return f"2024-01-{number:02}" if number else ""


def _run(dates: tuple[int, int], *changes: tuple[int, int]) -> run_pb2.Run:
    run = run_pb2.Run(is_partial_range=True, allows_incremental=True, compute_fingerprint="f")
    run.base_version.compute_fingerprint = "f"
    for name, number in zip(("start", "end"), dates, strict=True):
        if number:
            run.parameters.update({name: _day(number)})
    for start, end in changes:
        run.input_versions.add(change_start=_day(start), change_end=_day(end))
    return run


def _set(span: tuple[int, int]) -> set[int]:
    """Return the days between two; 0 is without an end."""
    start, end = span
    return set(range(start or min(DAYS), (end or max(DAYS)) + 1))


@pytest.mark.parametrize("dates", [(0, 3), (2, 0), *SPANS])
def test_a_range_covers_what_lies_in_it(dates: tuple[int, int]) -> None:
    nothing = (0, 0)
    for one, two, affected in itertools.product([nothing, *SPANS], [nothing, (2, 3)], [nothing, *SPANS]):
        needed = set().union(*(_set(span) for span in (one, two, affected) if span != nothing))
        found = covers_changes(_run(dates, one, two), (_day(affected[0]), _day(affected[1])))
        assert found is (needed <= _set(dates)), (one, two, affected)


def test_a_run_that_may_not_build_on_its_base_covers_nothing() -> None:
    right, affected = _run((1, 5), (2, 3)), (_day(2), _day(3))
    assert covers_changes(right, affected)
    assert not covers_changes(right, None)
    assert not covers_changes(right, ("", _day(3)))
    assert not covers_changes(right, (_day(2), ""))
    for field, value in (
        ("is_partial_range", False),
        ("allows_incremental", False),
        ("compute_fingerprint", "other"),
    ):
        wrong = _run((1, 5), (2, 3))
        setattr(wrong, field, value)
        assert not covers_changes(wrong, affected), field
