"""instance-service, status-service and the contracts agree on which status is more severe."""

import pytest

from buf.validate import validate_pb2
from optaic.common.v1.flow_pb2 import Status
from optaic.definition.v1.definition_pb2 import StatusAggregationContract
from optaic.rules.statuses import AGGREGATIONS, DEFAULT_PRIORITY, SEVERITY
from status_service.domain.statuses import severity_order
from support.contract import comments

CONTRACT = "optaic.definition.v1.StatusAggregationContract"


def test_the_contracts_state_the_order() -> None:
    assert tuple(name.removeprefix("STATUS_") for name in Status.keys()[1:]) == SEVERITY
    assert ", ".join(SEVERITY) in comments()[f"{CONTRACT}.status_priority"]


@pytest.mark.parametrize("field", ["status_priority", "aggregation_method"])
def test_the_contract_contains_every_status(field: str) -> None:
    options = StatusAggregationContract.DESCRIPTOR.fields_by_name[field].GetOptions()
    rules = options.Extensions[validate_pb2.field]
    texts = rules.repeated.items.string if field == "status_priority" else rules.string
    wanted = SEVERITY if field == "status_priority" else ("", *AGGREGATIONS)
    assert tuple(getattr(texts, "in")) == wanted


def test_instances_have_the_default_order_of_statuses() -> None:
    assert DEFAULT_PRIORITY == ("ERROR", "STALE", "RUNNING", "READY")
    assert severity_order(DEFAULT_PRIORITY) == severity_order(()) == SEVERITY
