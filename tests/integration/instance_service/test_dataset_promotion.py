"""A dataset becomes a signal in place: its newest output is judged, its readers are asked, nothing is computed."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import grpc
import pytest

from instance_service.store import outputs
from optaic.common.v1.flow_pb2 import FLOW_KIND_REFRESH
from optaic.instance.v1.instance_pb2 import INSTANCE_KIND_SIGNAL, Instance
from optaic.instance.v1.instance_service_pb2 import (
    DeleteInstanceRequest,
    GetInstanceRequest,
    ListInstanceRevisionsRequest,
    ListInstancesRequest,
    PromoteDatasetRequest,
)
from optaic.instance.v1.spec_pb2 import SignalContract
from optaic.run.v1.run_pb2 import ColumnProfile, OutputProfile, Run
from servicekit.ids import new_id
from support.definitions import model, publish
from support.instance_service import RunningInstanceService, refusal
from support.polling import eventually

WITHIN = SignalContract(min_value=-3, max_value=3)


def profile(minimum: float = -2.0, maximum: float = 2.0, **counts: int) -> OutputProfile:
    value = ColumnProfile(
        name="value", type="Float64", is_numeric=True, min_value=minimum, max_value=maximum, **counts
    )
    columns = [ColumnProfile(name="date", type="Date"), ColumnProfile(name="entity", type="String"), value]
    return OutputProfile(row_count=100, key_columns=["date", "entity"], columns=columns)


def run_of(instance: Instance, number: int, held: OutputProfile | None) -> Run:
    run = Run(
        run_id=new_id(), instance_id=instance.instance_id, flow_kind=FLOW_KIND_REFRESH, run_number=number
    )
    run.compute_fingerprint = instance.flows[0].compute_fingerprint
    if held is not None:
        run.pipeline.output_profile.CopyFrom(held)
    return run


async def promote(
    service: RunningInstanceService,
    instance: Instance,
    contract: SignalContract = WITHIN,
    tokens: Sequence[str] = (),
    **fields: Any,
) -> Instance:
    request = PromoteDatasetRequest(instance_id=instance.instance_id, contract=contract, **fields)
    metadata = (("optaic-read-tokens", ",".join(tokens)),) if tokens else ()
    promoted: Instance = await service.instances.PromoteDataset(request, metadata=metadata)
    return promoted


@pytest.fixture
async def scores(service: RunningInstanceService) -> Instance:
    """A dataset over prices, which has not run yet."""
    project = await service.project()
    prices = await service.prices(project.project_id)
    created = await service.derived(project.project_id, "scores", prices.instance_id)
    return await service.until_active(created.instance_id)


async def test_a_promotion_changes_only_the_kind_and_declares_the_output_verified(
    service: RunningInstanceService, scores: Instance
) -> None:
    submitted = await service.publish_run(run_of(scores, 7, None), "submitted")
    completed = await service.publish_run(run_of(scores, 7, profile()))
    promoted = await promote(
        service, scores, tokens=[submitted, completed], reason="it is good", request_id="a"
    )
    assert promoted.kind == INSTANCE_KIND_SIGNAL
    assert promoted.signal.contract == WITHIN
    assert promoted.signal.dataset == scores.dataset
    assert promoted.revision == scores.revision + 1
    (before,), (after,) = scores.flows, promoted.flows
    assert after.compute_fingerprint != before.compute_fingerprint
    assert after.verified_output.run_number == 7
    assert after.verified_output.compute_fingerprint == after.compute_fingerprint
    assert after.prefect_deployment_id == before.prefect_deployment_id
    assert after.prefect_deployment_name == before.prefect_deployment_name
    assert list(after.upstreams) == list(before.upstreams)
    assert after.fingerprint_change == "it became a signal"
    assert await promote(service, scores, reason="it is good", request_id="a") == promoted
    reused = await refusal(promote(service, scores, SignalContract(), reason="it is good", request_id="a"))
    assert reused.reason == "REQUEST_ID_REUSED"

    found = await service.instances.ListInstances(ListInstancesRequest(kinds=[INSTANCE_KIND_SIGNAL]))
    assert [one.instance_id for one in found.instances] == [scores.instance_id]
    revisions = await service.instances.ListInstanceRevisions(
        ListInstanceRevisionsRequest(instance_id=scores.instance_id)
    )
    assert revisions.revisions[0].reason == "it is good"
    counts = await service.row_counts()
    assert (counts["signals"], counts["datasets"], counts["components"]) == (1, 2, 6)

    renamed = await service.update(scores.instance_id, {"name": "renamed"}, "name")
    assert renamed.flows[0].verified_output == after.verified_output
    contract = {"signal": {"contract": {"minValue": -4}}}
    changed = await service.update(scores.instance_id, contract, "signal.contract.min_value")
    assert changed.flows[0].compute_fingerprint != after.compute_fingerprint
    back = await service.update(
        scores.instance_id, {"signal": {"contract": {"minValue": -3}}}, "signal.contract.min_value"
    )
    assert back.flows[0].compute_fingerprint == back.flows[0].verified_output.compute_fingerprint
    again = await refusal(promote(service, scores))
    assert (again.code, again.reason) == (grpc.StatusCode.INVALID_ARGUMENT, "UNSUPPORTED_KIND")


async def test_a_refused_promotion_writes_nothing(service: RunningInstanceService, scores: Instance) -> None:
    never = await refusal(promote(service, scores))
    assert (never.code, never.reason) == (grpc.StatusCode.FAILED_PRECONDITION, "NO_OUTPUT")
    token = await service.publish_run(run_of(scores, 1, None))
    untold = await refusal(promote(service, scores, tokens=[token]))
    assert untold.reason == "OUTPUT_NOT_PROFILED"
    token = await service.publish_run(run_of(scores, 3, profile(-9, 9, null_count=4, infinite_count=1)))
    await service.publish_run(run_of(scores, 2, profile()))  # an older run that is told later
    before = await service.row_counts()
    strict = SignalContract(min_value=-3, max_value=3, nan_policy=SignalContract.NAN_POLICY_FAIL)
    strict.index_columns.append("desk")
    broken = await refusal(promote(service, scores, strict, [token], request_id="x"))
    assert (broken.code, broken.reason) == (grpc.StatusCode.FAILED_PRECONDITION, "CONTRACT_BROKEN")
    assert broken.fields["contract.min_value"] == "value: the smallest value is -9.0, outside the bounds"
    assert broken.message == (
        "scores cannot become a signal: 5 checks of the contract fail; change the contract or the data as the field "
        "violations say"
    )
    assert set(broken.fields) == {
        "contract.index_columns",
        "contract.nan_policy",
        "contract",
        "contract.min_value",
        "contract.max_value",
    }
    bad = SignalContract(min_value=2, max_value=1)
    assert (await refusal(promote(service, scores, bad))).code is grpc.StatusCode.INVALID_ARGUMENT
    assert (await refusal(promote(service, scores, etag="r99"))).reason == "ETAG_MISMATCH"
    component = Instance(instance_id=scores.dataset.store_instance_id)
    assert (await refusal(promote(service, component))).reason == "UNSUPPORTED_KIND"
    assert (await refusal(promote(service, Instance(instance_id=new_id())))).reason == "INSTANCE_NOT_FOUND"
    token = await service.publish_run(run_of(scores, 4, profile()))
    checked = await promote(service, scores, tokens=[token], validate_only=True, request_id="y")
    assert checked.kind == INSTANCE_KIND_SIGNAL
    assert await service.row_counts() == before
    assert (await service.instances.GetInstance(GetInstanceRequest(instance_id=scores.instance_id))) == scores
    await service.instances.DeleteInstance(DeleteInstanceRequest(instance_id=scores.instance_id))
    assert (await refusal(promote(service, scores))).reason == "INSTANCE_DELETING"
    await service.clear_lineage(scores.instance_id)

    async def is_forgotten() -> bool:
        return (await service.row_counts())["outputs"] == 0

    await eventually(is_forgotten)


async def test_an_output_of_another_configuration_does_not_make_a_flow_fresh(
    service: RunningInstanceService, scores: Instance
) -> None:
    token = await service.publish_run(run_of(scores, 1, profile()))
    changed = await service.update(
        scores.instance_id,
        {"dataset": {"pipeline": {"config": {"expression": "open"}}}},
        "dataset.pipeline.config",
    )
    promoted = await promote(service, scores, tokens=[token])
    assert not promoted.flows[0].HasField("verified_output")
    assert promoted.flows[0].fingerprint_change == (
        f"{changed.flows[0].fingerprint_change}; it became a signal"
    )


async def test_promotion_is_refused_if_a_dependant_does_not_accept_a_signal(
    service: RunningInstanceService, scores: Instance
) -> None:
    project_id = scores.project_id
    await publish(service, "linear")
    await service.derived(project_id, "indifferent", scores.instance_id)
    condemned = await service.create(model(project_id, "condemned", scores.instance_id, scores.instance_id))
    fussy = await service.create(model(project_id, "fussy", scores.instance_id, scores.instance_id))
    signal = await service.signal(project_id, "signal", scores.instance_id)
    backtest = await service.create(
        {
            "projectId": project_id,
            "name": "backtest",
            "backtest": {"signals": {"primary": signal.instance_id}},
            "upstreamRefs": [{"resourceId": scores.instance_id, "role": "prices"}],
        }
    )
    await service.instances.DeleteInstance(DeleteInstanceRequest(instance_id=condemned.instance_id))
    token = await service.publish_run(run_of(scores, 1, profile()))
    refused = await refusal(promote(service, scores, tokens=[token]))
    assert (refused.code, refused.reason) == (grpc.StatusCode.FAILED_PRECONDITION, "WRONG_UPSTREAM_KIND")
    assert refused.preconditions == [
        ("WRONG_UPSTREAM_KIND", "backtest"),
        ("WRONG_UPSTREAM_KIND", "fussy"),
    ]
    assert refused.message == (
        "scores cannot become a signal: backtest, fussy do not accept a signal; remove these dependants' references to "
        "it first"
    )
    for reader in (backtest, fussy):
        await service.instances.DeleteInstance(DeleteInstanceRequest(instance_id=reader.instance_id))
    promoted = await promote(service, scores)
    assert promoted.kind == INSTANCE_KIND_SIGNAL


async def test_outputs_of_other_tenants_and_unknown_instances_are_not_kept(
    service: RunningInstanceService, scores: Instance
) -> None:
    stranger = Instance(instance_id=new_id(), flows=scores.flows)
    await service.publish_run(run_of(scores, 1, profile()), tenant_id="other")
    token = await service.publish_run(run_of(stranger, 1, profile()))
    assert (await refusal(promote(service, scores, tokens=[token]))).reason == "NO_OUTPUT"
    async with service.app.deps.database.read("other") as connection:
        assert await outputs.get_output(connection, "other", scores.instance_id, "refresh") is None
    assert (await service.row_counts())["outputs"] == 0
