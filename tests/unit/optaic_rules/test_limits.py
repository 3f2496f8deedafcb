"""Whoever cuts a text to the contract's size reads that size from the contract."""

import pytest
from google.protobuf.message import Message

from optaic.instance.v1.data_removal_service_pb2 import FinishDataRemovalRequest
from optaic.rules.data_removals import CLAIM, LONGEST
from optaic.rules.limits import longest_text
from optaic.run.v1.run_pb2 import RunError
from optaic.run.v1.run_report_service_pb2 import HeartbeatRequest
from optaic.run.v1.run_service_pb2 import ListRunsResponse
from support.contract import page
from worker import child, data_sweep, failures, reports


@pytest.mark.parametrize(
    ("message", "field", "limit", "copies"),
    [
        (RunError, "type", 256, [failures._LONGEST_TYPE]),
        (RunError, "message", 16_384, [failures._LONGEST_MESSAGE]),
        (HeartbeatRequest, "progress_message", 1024, [child._LONGEST_PROGRESS, reports._LONGEST_MESSAGE]),
        (FinishDataRemovalRequest, "problem", 4096, [data_sweep._LONGEST_PROBLEM]),
    ],
)
def test_the_worker_has_the_limit_of_the_contract(
    message: type[Message], field: str, limit: int, copies: list[int]
) -> None:
    assert longest_text(message, field) == limit
    assert set(copies) == {limit}


def test_a_field_without_a_limit_is_refused() -> None:
    with pytest.raises(ValueError, match=r"ListRunsResponse\.next_page_token may be of any length"):
        longest_text(ListRunsResponse, "next_page_token")


def test_a_claim_outlasts_the_removal_that_it_is_for() -> None:
    assert LONGEST < CLAIM
    minutes = CLAIM.total_seconds() / 60
    assert f"{minutes:.0f} minutes" in page("instances.md")
