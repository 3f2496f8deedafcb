"""The values of options: labels, times and moments mean the same in every command."""

import time
from collections.abc import Iterator
from datetime import UTC, datetime

import pytest
import typer

from optaic.cli.values import parse_labels, parse_time
from optaic.lineage.v1 import lineage_service_pb2
from optaic.lineage.v1.lineage_pb2 import FlowState
from optaic.status.v1 import status_service_pb2
from support.command_line import invoke
from support.fake_services import FakeServices

NINE = datetime(2026, 11, 20, 9, tzinfo=UTC)
TIMES = (
    "2026-11-20T09:00Z",
    "2026-11-20T09:00",
    "2026-11-20 09:00:00Z",  # as tables print it
    "2026-11-20T09:00:00.000",
    "2026-11-20T10:00+01:00",
)


@pytest.fixture
def somewhere_else(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The machine is in another time zone."""
    with monkeypatch.context() as patch:
        patch.setenv("TZ", "America/New_York")
        time.tzset()
        yield
    time.tzset()


@pytest.mark.parametrize("text", TIMES)
def test_a_time_without_a_zone_is_in_utc_in_every_command(
    optaic: FakeServices, somewhere_else: None, text: str
) -> None:
    del somewhere_else
    assert parse_time(text) == NINE
    optaic.on("GetFlowState", FlowState())
    optaic.on("DiffLineage", lineage_service_pb2.DiffLineageResponse())
    optaic.on("ListInstanceStatuses", status_service_pb2.ListInstanceStatusesResponse())
    optaic.on("GetStatusHistory", status_service_pb2.GetStatusHistoryResponse())
    invoke("lineage", "show", "prices", "--as-of", text)
    invoke("lineage", "diff", "prices", "--from", text)
    invoke("status", "list", "--as-of", text)
    invoke("status", "history", "prices", "--start", text)
    (state, difference, statuses, history) = (
        optaic.calls(method)[0].request
        for method in ("GetFlowState", "DiffLineage", "ListInstanceStatuses", "GetStatusHistory")
    )
    for sent in (state.as_of.time, difference.before.time, statuses.as_of.time, history.start_time):
        assert sent.ToDatetime(UTC) == NINE


def test_a_day_is_its_first_moment_in_utc() -> None:
    assert parse_time("2026-11-20") == datetime(2026, 11, 20, tzinfo=UTC)


@pytest.mark.parametrize("text", ["yesterday", "", "20261120", "2026-11-31", "0001-01-01T00:00+05:00"])
def test_what_is_no_time_is_refused(text: str) -> None:
    with pytest.raises(typer.BadParameter, match="is no time"):
        parse_time(text)


def test_labels_are_names_with_values() -> None:
    assert parse_labels(["desk=a=b", "team="]) == {"desk": "a=b", "team": ""}
    for wrong in (["desk"], ["=a"], ["desk=a", "desk=b"]):
        with pytest.raises(ValueError, match="label"):
            parse_labels(wrong)
