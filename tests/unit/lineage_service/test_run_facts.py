"""What lineage-service reads out of a run event."""

import pytest
from google.protobuf.message import Message

from lineage_service import conversion
from optaic.common.v1.flow_pb2 import FLOW_KIND_REFRESH
from optaic.run.v1 import run_events_pb2
from optaic.run.v1.run_pb2 import Run
from servicekit.errors import InvalidArgumentError
from servicekit.ids import new_id


def _run(number: int) -> Run:
    return Run(run_id=new_id(), instance_id=new_id(), flow_kind=FLOW_KIND_REFRESH, run_number=number)


def test_a_refused_run_has_no_number() -> None:
    fact = conversion.run_fact_of_event(run_events_pb2.RunCancelled(run=_run(0)), "event")
    assert fact is not None
    assert (fact.run_number, fact.event_id) == (0, "event")


@pytest.mark.parametrize(
    "message",
    [
        run_events_pb2.RunSubmitted(run=_run(0)),
        run_events_pb2.RunStarted(run=_run(0)),
        run_events_pb2.RunCompleted(run=_run(0)),
        run_events_pb2.RunFailed(run=_run(0)),
        run_events_pb2.RunCancelled(run=_run(-1)),
    ],
)
def test_a_run_event_without_a_valid_run_number_is_refused(message: Message) -> None:
    with pytest.raises(InvalidArgumentError, match="has no number"):
        conversion.run_fact_of_event(message, "event")
