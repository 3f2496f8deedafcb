"""An instance has the rule of its definition version by which the statuses of its flows become its own."""

import grpc

from optaic.common.v1.flow_pb2 import FLOW_KIND_INFERENCE
from support.definitions import model, publish
from support.instance_service import RunningInstanceService, refusal


async def test_an_instance_has_the_aggregation_contract_of_its_version_and_wrong_flows_are_refused(
    service: RunningInstanceService,
) -> None:
    project = (await service.project()).project_id
    await publish(service, "linear")
    prices = await service.prices(project)
    follower = await service.create(model(project, "m", prices.instance_id, trackNewest=True))
    assert follower.status_aggregation_contract.aggregation_method == "min_severity"
    wrong = {"aggregationMethod": "required_flows", "requiredFlows": ["FLOW_KIND_INFERENCE"]}
    only_training = [{"flowKind": "FLOW_KIND_TRAINING"}]
    refused = await refusal(
        publish(service, "linear", "2.0.0", flowSpecs=only_training, statusAggregationContract=wrong)
    )
    path = "definition_version.status_aggregation_contract.required_flows[0]"
    assert (refused.code, set(refused.fields)) == (grpc.StatusCode.INVALID_ARGUMENT, {path})
    await publish(service, "linear", "2.0.0", statusAggregationContract=wrong)
    moved = await service.until(follower.instance_id, lambda found: found.revision > follower.revision)
    contract = moved.status_aggregation_contract
    assert (contract.aggregation_method, [*contract.required_flows]) == (
        "required_flows",
        [FLOW_KIND_INFERENCE],
    )
    assert list(contract.status_priority) == ["ERROR", "STALE", "RUNNING", "READY"]
