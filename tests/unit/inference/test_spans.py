"""Which version predicts which date, against the definition: the last one that knew no later label."""

from __future__ import annotations

import datetime as dt
import random

import pytest

from worker.inference.spans import Knowledge, plan_spans

FIRST = dt.date(2024, 1, 1)


def day(number: int) -> dt.date:
    return FIRST + dt.timedelta(days=number)


@pytest.mark.parametrize("seed", range(50))
def test_each_date_is_predicted_by_the_last_version_that_may(seed: int) -> None:
    choices = random.Random(seed)
    ends = sorted(choices.sample(range(60), choices.randint(1, 6)))
    # The horizon may have changed between two trainings, so that a later one knows an earlier label last.
    versions = [Knowledge(day(end), day(end + choices.randint(1, 25))) for end in ends]
    spans = plan_spans(versions)
    for number in range(100):
        date = day(number)
        may = [
            position
            for position, each in enumerate(versions)
            if date > each.train_end and date >= each.label_end
        ]
        found = [
            span.position for span in spans if span.start <= date and (span.end is None or date < span.end)
        ]
        assert found == ([may[-1]] if may else [])


def test_one_version_predicts_everything_after_what_it_knew() -> None:
    (span,) = plan_spans([Knowledge(day(3), day(4))])
    assert (span.start, span.end) == (day(4), None)
    (later,) = plan_spans([Knowledge(day(3), day(8))])
    assert later.start == day(8), "the label of day 3 was known on day 8 only"
