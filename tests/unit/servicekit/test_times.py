"""Times in messages are those that protobuf itself would write."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone

from google.protobuf.timestamp_pb2 import Timestamp
from hypothesis import given
from hypothesis import strategies as st

from servicekit.times import set_time

_ZONES = st.sampled_from([UTC, timezone(timedelta(hours=5, minutes=30)), timezone(-timedelta(hours=8))])


@given(st.datetimes(min_value=datetime(2, 1, 1), max_value=datetime(9998, 12, 31), timezones=_ZONES))  # noqa: DTZ001 - Hypothesis adds the zone
def test_a_time_is_set_as_by_protobuf(moment: datetime) -> None:
    expected, stamp = Timestamp(), Timestamp()
    expected.FromDatetime(moment)
    set_time(stamp, moment)
    assert stamp == expected
