"""A freshness policy needs a date in the output: refused where there is known to be none, else said as a condition."""

from __future__ import annotations

from typing import Any

import grpc

from instance_service.resources.instances.freshness import freshness_violations
from optaic.common.v1.flow_pb2 import FLOW_KIND_REFRESH
from optaic.instance.v1.instance_pb2 import Instance
from optaic.instance.v1.instance_service_pb2 import GetInstanceRequest
from optaic.run.v1.run_pb2 import ColumnProfile, OutputProfile, Run
from servicekit.ids import new_id
from support.instance_service import RunningInstanceService, refusal
from support.polling import eventually

INVALID = grpc.StatusCode.INVALID_ARGUMENT
DAILY: dict[str, Any] = {"freshnessPolicy": {"frequency": "FREQUENCY_DAILY", "exchangeCalendar": "XNYS"}}


async def told(service: RunningInstanceService, instance: Instance, number: int, *columns: str) -> None:
    """Tell of a completed run whose output has these columns."""
    run = Run(
        run_id=new_id(), instance_id=instance.instance_id, flow_kind=FLOW_KIND_REFRESH, run_number=number
    )
    run.compute_fingerprint = instance.flows[0].compute_fingerprint
    profile = OutputProfile(row_count=1, columns=[ColumnProfile(name=name) for name in columns])
    run.pipeline.output_profile.CopyFrom(profile)
    await service.publish_run(run)


async def conditions(service: RunningInstanceService, instance: Instance) -> dict[str, str]:
    """Return the messages of the instance's conditions about its policy."""
    found = await service.instances.GetInstance(GetInstanceRequest(instance_id=instance.instance_id))
    return {each.reason: each.message for each in found.conditions if each.type == "FreshnessNotJudged"}


async def has_conditions(
    service: RunningInstanceService, instance: Instance, expected: dict[str, str]
) -> None:
    async def is_so() -> bool:
        return await conditions(service, instance) == expected

    await eventually(is_so)


async def test_a_policy_for_an_output_without_a_date_is_refused(service: RunningInstanceService) -> None:
    project_id = (await service.project()).project_id
    prices = await service.prices(project_id)
    await told(service, prices, 1, "entity", "close")

    async def is_known() -> bool:
        return (await service.row_counts("outputs"))["outputs"] > 0

    await eventually(is_known)
    refused = await refusal(service.update(prices.instance_id, DAILY, "freshness_policy"))
    assert (refused.code, list(refused.fields)) == (INVALID, ["instance.freshness_policy"])
    assert "it has entity, close" in refused.fields["instance.freshness_policy"]
    irregular = {"freshnessPolicy": {"frequency": "FREQUENCY_IRREGULAR"}}
    await service.update(prices.instance_id, irregular, "freshness_policy")


async def test_a_policy_that_cannot_be_judged_later_is_said_as_a_condition(
    service: RunningInstanceService,
) -> None:
    project_id = (await service.project()).project_id
    prices = await service.prices(project_id, **DAILY)
    assert await conditions(service, prices) == {}
    await told(service, prices, 1, "entity", "close")
    said = {"NoDateColumn": "the newest output has no column date, so the freshness policy is not judged"}
    await has_conditions(service, prices, said)
    # What is as before may stay, whatever else is changed.
    await service.update(prices.instance_id, {"description": "d"}, "description")
    assert await conditions(service, prices) == said
    await told(service, prices, 2, "date", "entity", "close")
    await has_conditions(service, prices, {})
    await told(service, prices, 3, "entity", "close")
    await has_conditions(service, prices, said)
    await service.update(prices.instance_id, {}, "freshness_policy")
    assert await conditions(service, prices) == {}


def test_a_backtest_has_no_policy_and_a_stored_one_stays() -> None:
    backtest = Instance()
    backtest.freshness_policy.frequency = backtest.freshness_policy.FREQUENCY_DAILY
    (violation,) = freshness_violations(backtest, None, "backtest")
    assert violation.field == "instance.freshness_policy"
    assert "nothing reads the output of a backtest" in violation.description
    assert freshness_violations(backtest, backtest, "backtest") == []
