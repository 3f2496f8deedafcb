"""What every call carries, and what a refusal becomes."""

import uuid
from typing import Any

import grpc
import pytest
from google.rpc import error_details_pb2

from optaic import errors
from optaic.client import AsyncClient, connection
from optaic.common.v1 import flow_pb2
from optaic.definition.v1 import definition_pb2
from optaic.instance.v1 import instance_pb2, instance_service_pb2, spec_pb2
from optaic.lineage.v1 import lineage_service_pb2
from optaic.run.v1 import run_pb2
from optaic.status.v1 import status_pb2
from support.fake_services import FakeServices, refuse

ID = str(uuid.UUID(int=1))


async def test_a_read_after_a_write_carries_the_writes_token_to_every_service(
    services: FakeServices, client: AsyncClient
) -> None:
    services.on("CreateProject", instance_pb2.Project(), write_token="instance/a,instance/b")
    services.on("SubmitRun", run_pb2.Run(), write_token="run/c")
    services.on("GetInstanceStatus", status_pb2.InstanceStatus())
    await client.status.get(ID)
    assert "optaic-read-tokens" not in services.seen[-1].metadata
    await client.projects.create("p")
    await client.runs.submit(ID)
    # Whether upstreams are ready depends on what was just written to them.
    assert services.seen[-1].metadata["optaic-read-tokens"] == "instance/a,instance/b"
    await client.status.get(ID)
    assert services.seen[-1].metadata["optaic-read-tokens"] == "instance/a,instance/b,run/c"


async def test_only_the_newest_tokens_are_kept_and_not_for_ever(
    services: FakeServices, client: AsyncClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    services.on(
        "CreateProject", instance_pb2.Project(), write_token=",".join(f"instance/{n}" for n in range(100))
    )
    services.on("GetInstanceStatus", status_pb2.InstanceStatus())
    await client.projects.create("p")
    await client.status.get(ID)
    kept = services.seen[-1].metadata["optaic-read-tokens"].split(",")
    assert kept == [f"instance/{n}" for n in range(36, 100)]
    monkeypatch.setattr(connection, "_TOKEN_SECONDS", -1)
    await client.status.get(ID)
    assert "optaic-read-tokens" not in services.seen[-1].metadata


async def test_a_definitions_token_is_not_passed_on(services: FakeServices, client: AsyncClient) -> None:
    services.on("PublishDefinition", definition_pb2.DefinitionVersion(), write_token="instance/a")
    services.on("GetInstanceStatus", status_pb2.InstanceStatus())
    await client.definitions.publish("d", "pipeline", {"version": "1.0.0"})
    await client.status.get(ID)
    assert "optaic-read-tokens" not in services.seen[-1].metadata


async def test_every_call_has_the_token_and_every_mutation_a_request_id(
    services: FakeServices, client: AsyncClient
) -> None:
    services.on("CreateProject", instance_pb2.Project())
    await client.projects.create("p")
    (call,) = services.calls("CreateProject")
    assert call.metadata["authorization"] == "Bearer secret"
    assert uuid.UUID(call.request.request_id)
    services.on("CreateInstance", instance_pb2.Instance())
    await client.instances.create(project="p", name="x", dataset={}, request_id="mine")
    assert services.calls("CreateInstance")[0].request.request_id == "mine"


async def test_an_unavailable_service_is_tried_again(services: FakeServices, client: AsyncClient) -> None:
    def first_fails(request: Any, context: grpc.ServicerContext) -> instance_pb2.Project:
        if len(services.calls("CreateProject")) == 1:
            context.abort(grpc.StatusCode.UNAVAILABLE, "not yet")
        return instance_pb2.Project(name=request.project.name)

    services.on("CreateProject", first_fails)
    assert (await client.projects.create("p")).name == "p"
    first, second = services.calls("CreateProject")
    assert first.request.request_id == second.request.request_id


@pytest.mark.parametrize(
    ("code", "reason", "kind"),
    [
        (grpc.StatusCode.NOT_FOUND, "INSTANCE_NOT_FOUND", errors.NotFoundError),
        (grpc.StatusCode.INVALID_ARGUMENT, "INVALID_SPEC", errors.InvalidArgumentError),
        (grpc.StatusCode.INVALID_ARGUMENT, "INVALID_CONFIG", errors.InvalidConfigError),
        (grpc.StatusCode.INVALID_ARGUMENT, "INVALID_EXPRESSION", errors.InvalidExpressionError),
        (grpc.StatusCode.ALREADY_EXISTS, "RUN_ACTIVE", errors.AlreadyExistsError),
        (grpc.StatusCode.FAILED_PRECONDITION, "CYCLE", errors.FailedPreconditionError),
        (grpc.StatusCode.FAILED_PRECONDITION, "MISSING_INPUT", errors.MissingInputError),
        (grpc.StatusCode.ABORTED, "ETAG_MISMATCH", errors.ConflictError),
        (grpc.StatusCode.UNAUTHENTICATED, "TOKEN_INVALID", errors.UnauthenticatedError),
        (grpc.StatusCode.PERMISSION_DENIED, "NO", errors.PermissionDeniedError),
        (grpc.StatusCode.OUT_OF_RANGE, "REVISION_COMPACTED", errors.OutOfRangeError),
        (grpc.StatusCode.RESOURCE_EXHAUSTED, "WATCHER_TOO_SLOW", errors.ResourceExhaustedError),
        (grpc.StatusCode.INTERNAL, "INTERNAL", errors.OptaicError),
    ],
)
async def test_refusals_are_typed(
    services: FakeServices,
    client: AsyncClient,
    code: grpc.StatusCode,
    reason: str,
    kind: type[errors.OptaicError],
) -> None:
    services.on("GetInstance", lambda _, context: refuse(context, code, reason, "words", key="value"))
    with pytest.raises(errors.OptaicError) as caught:
        await client.instances.get(ID)
    assert type(caught.value) is kind
    assert (caught.value.code, caught.value.reason, caught.value.message) == (code, reason, "words")
    assert caught.value.metadata == {"key": "value"}


async def test_every_violation_is_shown(services: FakeServices, client: AsyncClient) -> None:
    bad = error_details_pb2.BadRequest(
        field_violations=[
            error_details_pb2.BadRequest.FieldViolation(
                field="dataset.pipeline.config.x", description="not a date"
            ),
            error_details_pb2.BadRequest.FieldViolation(field="name", description="taken", reason="R"),
        ]
    )
    code = grpc.StatusCode.INVALID_ARGUMENT
    services.on("CreateInstance", lambda _, context: refuse(context, code, "INVALID_CONFIG", "bad", [bad]))
    with pytest.raises(errors.InvalidConfigError) as caught:
        await client.instances.create(project=ID, name="x", dataset={"pipeline": {}})
    assert [(each.field, each.reason) for each in caught.value.violations] == [
        ("dataset.pipeline.config.x", ""),
        ("name", "R"),
    ]
    assert "dataset.pipeline.config.x: not a date" in str(caught.value)


async def test_every_blocking_flow_is_named(services: FakeServices, client: AsyncClient) -> None:
    failure = error_details_pb2.PreconditionFailure(
        violations=[
            error_details_pb2.PreconditionFailure.Violation(
                type="STALE", subject="prices/refresh", description="own config"
            )
        ]
    )
    code = grpc.StatusCode.FAILED_PRECONDITION
    services.on(
        "SubmitRun", lambda _, context: refuse(context, code, "UPSTREAM_NOT_READY", "wait", [failure])
    )
    with pytest.raises(errors.UpstreamNotReadyError) as caught:
        await client.runs.submit(ID)
    assert caught.value.blocking == (errors.Blocking("STALE", "prices/refresh", "own config"),)


async def test_a_failure_without_details_is_typed_too(client: AsyncClient) -> None:
    with pytest.raises(errors.OptaicError) as caught:
        await client.instances.get(ID)
    assert (caught.value.code, caught.value.reason) == (grpc.StatusCode.UNIMPLEMENTED, "UNIMPLEMENTED")


async def test_lists_are_read_to_the_last_page(services: FakeServices, client: AsyncClient) -> None:
    def page(request: Any, _: grpc.ServicerContext) -> instance_service_pb2.ListInstancesResponse:
        number = int(request.page_token or 0)
        return instance_service_pb2.ListInstancesResponse(
            instances=[instance_pb2.Instance(name=f"i{number}")],
            next_page_token=str(number + 1) if number < 2 else "",
        )

    services.on("ListInstances", page)
    found = await client.instances.list(kinds=["dataset"])
    assert [each.name for each in found] == ["i0", "i1", "i2"]


async def test_an_instance_is_created_from_plain_values(services: FakeServices, client: AsyncClient) -> None:
    services.on("CreateInstance", lambda request, _: request.instance)
    created = await client.instances.create(
        project=instance_pb2.Project(project_id="p"),
        name="momentum",
        signal={"dataset": {"pipeline": {"definition_name": "expression"}}},
        upstreams={"input": instance_pb2.Instance(instance_id="a"), "prices": ["b", "c"]},
    )
    assert created.project_id == "p"
    assert [(each.resource_id, each.role) for each in created.upstream_refs] == [
        ("a", "input"),
        ("b", "prices"),
        ("c", "prices"),
    ]


async def test_a_backtest_may_be_given_under_its_other_names(
    services: FakeServices, client: AsyncClient
) -> None:
    services.on("CreateInstance", lambda request, _: request.instance)
    created = await client.instances.create(
        project="p",
        name="b",
        assets_json={"universe": ["AAPL"], "benchmark": "equal_weight"},
        signals_json={"primary": ID},
        date_range_json={"start": "2015-01-02"},
        config_json={"rebalance_frequency": "daily", "transaction_costs": 0.001},
    )
    assert created.backtest.assets.universe == ["AAPL"]
    assert created.backtest.config.rebalance_frequency == "daily"
    assert not created.HasField("config")


async def test_an_update_sends_a_mask_of_exactly_the_changed_fields(
    services: FakeServices, client: AsyncClient
) -> None:
    services.on("UpdateInstance", instance_pb2.Instance())
    changes = {"dataset": {"pipeline": {"config": {"as_of": "2022-12-28"}}}}
    await client.instances.update(ID, changes, upstreams={"input": "u"}, etag="e", reason="r")
    request = services.calls("UpdateInstance")[0].request
    assert list(request.update_mask.paths) == ["dataset.pipeline.config", "upstream_refs"]
    assert (request.instance.instance_id, request.instance.etag, request.reason) == (ID, "e", "r")


async def test_an_ambiguous_name_is_refused(services: FakeServices, client: AsyncClient) -> None:
    two = [instance_pb2.Instance(instance_id=each) for each in "ab"]
    services.on("ListInstances", instance_service_pb2.ListInstancesResponse(instances=two))
    with pytest.raises(errors.FailedPreconditionError, match="a, b"):
        await client.instances.get_by_name("x")
    services.on("ListInstances", instance_service_pb2.ListInstancesResponse())
    with pytest.raises(errors.NotFoundError):
        await client.instances.get_by_name("x")


async def test_the_flow_of_an_instance_is_found(services: FakeServices, client: AsyncClient) -> None:
    flows = [
        instance_pb2.Flow(flow_kind=flow_pb2.FLOW_KIND_MONITORING),
        instance_pb2.Flow(flow_kind=flow_pb2.FLOW_KIND_BACKTEST),
    ]
    services.on("GetInstance", instance_pb2.Instance(instance_id=ID, flows=flows))
    services.on("CheckUpstreamFreshness", lineage_service_pb2.CheckUpstreamFreshnessResponse(all_ready=True))
    report = await client.lineage.check(ID)
    assert report.all_ready
    assert services.seen[-1].request.flow.flow_kind == flow_pb2.FLOW_KIND_BACKTEST
    await client.lineage.check(ID, "train")
    assert services.seen[-1].request.flow.flow_kind == flow_pb2.FLOW_KIND_TRAINING


async def test_a_run_may_be_submitted_for_a_parent_id(services: FakeServices, client: AsyncClient) -> None:
    services.on("SubmitRun", run_pb2.Run())
    await client.runs.submit(parent_id=ID, flow_kind="infer", mode="incremental")
    request = services.calls("SubmitRun")[0].request
    assert request.instance_id == ID
    assert request.flow_kind == flow_pb2.FLOW_KIND_INFERENCE


async def test_a_publication_may_be_a_draft_or_a_check_and_moves_through_its_states(
    services: FakeServices, client: AsyncClient
) -> None:
    report = definition_pb2.PublicationReport(previous_version="1.0.0")
    answer = definition_pb2.DefinitionVersion(publication_report=report)
    for method in ("PublishDefinition", "ActivateDefinitionVersion", "RetireDefinitionVersion"):
        services.on(method, answer)
    published = await client.definitions.publish(
        "d", "pipeline", {"version": "1.1.0"}, draft=True, validate_only=True
    )
    assert published.publication_report.previous_version == "1.0.0"
    request = services.calls("PublishDefinition")[0].request
    assert (request.draft, request.validate_only) == (True, True)
    await client.definitions.activate(ID, "tried")
    await client.definitions.retire(ID, "unsafe")
    assert [(each.request.definition_version_id, each.request.reason) for each in services.seen[1:]] == [
        (ID, "tried"),
        (ID, "unsafe"),
    ]


async def test_instances_are_found_by_state_owner_and_definition(
    services: FakeServices, client: AsyncClient
) -> None:
    services.on("ListInstances", instance_service_pb2.ListInstancesResponse())
    definition = definition_pb2.Definition(definition_id=ID)
    await client.instances.list(states=["active"], owner="o", definition=definition)
    request = services.calls("ListInstances")[0].request
    assert list(request.states) == [instance_pb2.INSTANCE_STATE_ACTIVE]
    assert (request.owner, request.definition_id) == ("o", ID)


async def test_deletions_cascade_and_revisions_are_compared(
    services: FakeServices, client: AsyncClient
) -> None:
    services.on("DeleteInstance", instance_pb2.Instance())
    change = instance_service_pb2.FieldChange(path="labels.team")
    services.on("DiffInstanceRevisions", instance_service_pb2.DiffInstanceRevisionsResponse(changes=[change]))
    await client.instances.delete(ID, cascade=True, validate_only=True)
    request = services.calls("DeleteInstance")[0].request
    assert (request.cascade, request.validate_only) == (True, True)
    assert [each.path for each in await client.instances.diff(ID, 1, 3)] == ["labels.team"]
    request = services.calls("DiffInstanceRevisions")[0].request
    assert (request.from_revision, request.to_revision) == (1, 3)


async def test_a_dataset_is_promoted_and_the_run_that_was_seen_is_named(
    services: FakeServices, client: AsyncClient
) -> None:
    services.on("SubmitRun", run_pb2.Run(), write_token="run/c")
    services.on("PromoteDataset", instance_pb2.Instance())
    await client.runs.submit(ID)
    contract = {"min_value": -3, "nan_policy": "fail", "index_columns": ["date"]}
    await client.instances.promote_dataset(ID, contract, reason="good", etag="r1", validate_only=True)
    (call,) = services.calls("PromoteDataset")
    assert call.metadata["optaic-read-tokens"] == "run/c"
    expected = spec_pb2.SignalContract(
        min_value=-3, nan_policy=spec_pb2.SignalContract.NAN_POLICY_FAIL, index_columns=["date"]
    )
    assert call.request.contract == expected
    assert (call.request.reason, call.request.etag, call.request.validate_only) == ("good", "r1", True)
    assert uuid.UUID(call.request.request_id)
    await client.instances.promote_dataset(ID)
    assert services.seen[-1].request.HasField("contract")


async def test_a_model_version_is_promoted_and_promotions_are_listed(
    services: FakeServices, client: AsyncClient
) -> None:
    promotion = spec_pb2.ModelPromotion(model_version="3")
    services.on("PromoteModelVersion", instance_pb2.Instance())
    services.on(
        "ListModelPromotions", instance_service_pb2.ListModelPromotionsResponse(promotions=[promotion])
    )
    await client.instances.promote_model_version(ID, 3, reason="better", etag="r1", validate_only=True)
    request = services.calls("PromoteModelVersion")[0].request
    assert (request.model_version, request.reason, request.etag, request.validate_only) == (
        "3",
        "better",
        "r1",
        True,
    )
    assert [each.model_version for each in await client.instances.model_promotions(ID)] == ["3"]


async def test_a_champion_is_removed(services: FakeServices, client: AsyncClient) -> None:
    services.on("RemoveChampion", instance_pb2.Instance())
    await client.instances.remove_champion(ID, reason="worse", etag="r2", validate_only=True)
    (call,) = services.calls("RemoveChampion")
    assert call.request == instance_service_pb2.RemoveChampionRequest(
        instance_id=ID, reason="worse", etag="r2", validate_only=True, request_id=call.request.request_id
    )


async def test_a_dry_run_of_a_deletion_returns_the_resources_to_delete(
    client: AsyncClient, services: FakeServices
) -> None:
    pages = [
        instance_service_pb2.PreviewDeletionResponse(
            instances=[instance_service_pb2.DeletedInstance(name=name)],
            next_page_token=token,
            preview_etag="p",
        )
        for name, token in (("reader", "more"), ("prices", ""))
    ]
    services.on("PreviewDeletion", lambda request, _: pages[1 if request.page_token else 0])
    for noun, calls in (("instance", client.instances), ("project", client.projects)):
        found = await calls.delete(str(uuid.UUID(int=1)), cascade=True, dry_run=True)
        assert [each.name for each in found] == ["reader", "prices"]
        asked = services.calls("PreviewDeletion")[-1].request
        assert asked.WhichOneof("target") == f"delete_{noun}"
        assert getattr(asked, f"delete_{noun}").cascade
    assert not services.calls("DeleteInstance")
    assert not services.calls("DeleteProject")
