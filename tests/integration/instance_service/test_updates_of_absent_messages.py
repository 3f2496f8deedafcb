"""An update of one field of a message that the instance does not have: the result must keep the contract."""

from typing import Any

import pytest

from optaic.instance.v1.instance_service_pb2 import GetInstanceRequest
from support.instance_service import RunningInstanceService, refusal


@pytest.mark.parametrize(
    ("given", "path", "broken"),
    [
        ({"schedule": {"timeout": "60s"}}, "schedule.timeout", "instance.schedule.timing"),
        (
            {"schedule": {"retryPolicy": {"delay": "5s"}}},
            "schedule.retry_policy.delay",
            "instance.schedule.timing",
        ),
        (
            {"freshnessPolicy": {"grace": "5s"}},
            "freshness_policy.grace",
            "instance.freshness_policy.frequency",
        ),
    ],
)
async def test_an_update_of_one_field_of_a_message_that_is_absent_is_refused(
    service: RunningInstanceService, given: dict[str, Any], path: str, broken: str
) -> None:
    prices = await service.prices((await service.project()).project_id)
    refused = await refusal(service.update(prices.instance_id, given, path))
    assert (refused.reason, list(refused.fields)) == (
        "INVALID_ARGUMENT",
        [broken],
    )
    found = await service.instances.GetInstance(GetInstanceRequest(instance_id=prices.instance_id))
    assert found.revision == 1
