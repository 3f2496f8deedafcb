"""When the data of an instance that is gone is removed."""

from datetime import UTC, datetime, timedelta

import pytest

from instance_service.domain.data_removal import deleted_until, remove_time, retry_delay

GONE = datetime(2026, 1, 1, tzinfo=UTC)
DAY = 86400.0


def test_data_stays_for_the_whole_grace() -> None:
    assert remove_time(GONE, GONE, 7 * DAY) == GONE + timedelta(days=7)
    assert deleted_until(GONE + timedelta(days=7), 7 * DAY) == GONE
    assert deleted_until(GONE + timedelta(days=7) - timedelta(seconds=1), 7 * DAY) < GONE


def test_data_is_removed_at_once_without_a_grace_period() -> None:
    assert remove_time(GONE, GONE, 0) == deleted_until(GONE, 0) == GONE


def test_a_longer_grace_period_applies_to_data_that_is_already_deleted() -> None:
    late = GONE + timedelta(days=8)
    assert remove_time(GONE, late, 7 * DAY) == late
    assert remove_time(GONE, late, 30 * DAY) == GONE + timedelta(days=30)


@pytest.mark.parametrize(
    ("attempts", "minutes"), [(0, 1), (1, 1), (2, 2), (5, 16), (11, 1024), (12, 1440), (999, 1440)]
)
def test_a_removal_that_fails_is_tried_ever_more_slowly(attempts: int, minutes: int) -> None:
    assert retry_delay(attempts) == timedelta(minutes=minutes)
