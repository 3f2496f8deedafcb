"""Projects get other names and descriptions, and go with everything in them; whoever dies meanwhile, they go."""

from typing import Any

import grpc

from instance_service.store import projects as store
from optaic.instance.v1.instance_pb2 import (
    INSTANCE_STATE_DELETING,
    PROJECT_STATE_ACTIVE,
    PROJECT_STATE_DELETING,
    Instance,
    Project,
)
from optaic.instance.v1.instance_service_pb2 import (
    CreateProjectRequest,
    DeleteInstanceRequest,
    DeleteProjectRequest,
    GetInstanceRequest,
    GetProjectRequest,
    ListProjectsRequest,
    PreviewDeletionRequest,
    UpdateProjectRequest,
)
from support.broker import listen
from support.counterparts import FakeDeployments
from support.identities import caller
from support.instance_service import RunningInstanceService, refusal, running
from support.polling import eventually
from support.postgres import service_database

OTHER_TENANT = caller("maintainer", "other")


async def update(service: RunningInstanceService, project: Project, *paths: str, **fields: Any) -> Project:
    """Change fields of a project."""
    given = Project(project_id=project.project_id, **fields)
    request = UpdateProjectRequest(project=given)
    request.update_mask.paths.extend(paths or [each for each in fields if each != "etag"])
    changed: Project = await service.instances.UpdateProject(request)
    return changed


async def get(service: RunningInstanceService, **fields: str) -> Project:
    """Return a project by id or name."""
    found: Project = await service.instances.GetProject(GetProjectRequest(**fields))
    return found


async def is_gone(service: RunningInstanceService, project: Project) -> bool:
    """Return whether there is no such project any more."""
    try:
        await get(service, project_id=project.project_id)
    except grpc.aio.AioRpcError as error:
        return bool(error.code() == grpc.StatusCode.NOT_FOUND)
    return False


async def clear(service: RunningInstanceService, *instances: Instance) -> None:
    """Say of instances what lineage-service says when it has nothing of them."""
    for instance in instances:
        await service.clear_lineage(instance.instance_id)


async def test_a_project_gets_another_name_and_description(service: RunningInstanceService) -> None:
    made = await service.project("research")
    assert (made.state, made.revision, made.etag) == (PROJECT_STATE_ACTIVE, 1, "r1")
    changed = await update(service, made, name="alpha", description="Equities", labels={"team": "a"})
    assert (changed.name, changed.description, dict(changed.labels)) == ("alpha", "Equities", {"team": "a"})
    assert (changed.project_id, changed.revision, changed.etag) == (made.project_id, 2, "r2")
    assert changed.create_time == made.create_time
    assert await get(service, name="alpha") == await get(service, project_id=made.project_id) == changed
    assert (await refusal(get(service, name="research"))).reason == "PROJECT_NOT_FOUND"
    assert await update(service, changed, description="Equities") == changed
    cleared = await update(service, changed, "description", "labels")
    assert (cleared.name, cleared.description, dict(cleared.labels)) == ("alpha", "", {})
    again = await update(service, changed, "*", name="beta", description="x")
    assert (again.name, again.description, again.revision) == ("beta", "x", 4)


async def test_renaming_a_project_does_not_change_its_instances(
    service: RunningInstanceService,
) -> None:
    project = await service.project("research")
    prices = await service.until_active((await service.prices(project.project_id)).instance_id)
    stored = dict(service.deployments.stored)
    events = await listen(service.nats, "optaic.*.instance.v1.*.*")
    await update(service, project, name="alpha")
    found = await service.instances.GetInstance(GetInstanceRequest(instance_id=prices.instance_id))
    assert found == prices
    assert service.deployments.stored == stored
    derived = await service.derived(project.project_id, "derived", prices.instance_id)
    told = await events.next_msg(timeout=5)
    assert told.subject.endswith(
        f"created.{derived.instance_id}"
    )  # and of the project nothing was told before


async def test_a_project_is_changed_once_and_as_it_was_read(service: RunningInstanceService) -> None:
    one, two = await service.project("one"), await service.project("two")
    taken = await refusal(update(service, two, name="one"))
    assert (taken.code, taken.reason) == (grpc.StatusCode.ALREADY_EXISTS, "NAME_TAKEN")
    assert taken.field_reasons == {"project.name": "NAME_TAKEN"}
    for path in ("project_id", "create_time", "state", "labels.team", "colour"):
        refused = await refusal(update(service, two, path))
        assert refused.field_reasons == {"update_mask.paths[0]": "IMMUTABLE_FIELD"}
    assert (await refusal(update(service, two, "name"))).fields == {"project.name": "is required"}
    request = UpdateProjectRequest(project=Project(project_id=one.project_id, name="uno", etag="r1"))
    request.update_mask.paths.append("name")
    request.validate_only = True
    assert (await service.instances.UpdateProject(request)).name == "uno"
    assert (await get(service, project_id=one.project_id)) == one
    request.validate_only, request.request_id = False, "once"
    changed = await service.instances.UpdateProject(request)
    assert await service.instances.UpdateProject(request) == changed
    request.request_id = "twice"
    refused = await refusal(service.instances.UpdateProject(request))
    assert (refused.code, refused.reason) == (grpc.StatusCode.ABORTED, "ETAG_MISMATCH")
    request.project.project_id = "no id"
    assert (await refusal(service.instances.UpdateProject(request))).reason == "PROJECT_NOT_FOUND"


async def test_an_empty_project_is_deleted_at_once(service: RunningInstanceService) -> None:
    project = await service.project("research")
    request = DeleteProjectRequest(project_id=project.project_id, validate_only=True)
    assert (await service.instances.DeleteProject(request)).state == PROJECT_STATE_DELETING
    assert (await get(service, name="research")) == project
    refused = await refusal(
        service.instances.DeleteProject(DeleteProjectRequest(project_id=project.project_id, etag="r9"))
    )
    assert refused.reason == "ETAG_MISMATCH"
    request.validate_only, request.request_id = False, "once"
    gone = await service.instances.DeleteProject(request)
    assert (gone.name, gone.state) == ("research", PROJECT_STATE_DELETING)
    assert await is_gone(service, project)
    assert await service.instances.DeleteProject(request) == gone
    request.request_id = "twice"
    assert (await refusal(service.instances.DeleteProject(request))).reason == "PROJECT_NOT_FOUND"


async def test_a_project_with_instances_is_not_deleted_without_cascade(
    service: RunningInstanceService,
) -> None:
    project = await service.project("research")
    prices = await service.prices(project.project_id)
    await service.derived(project.project_id, "derived", prices.instance_id)
    request = DeleteProjectRequest(project_id=project.project_id)
    refused = await refusal(service.instances.DeleteProject(request))
    assert (refused.code, refused.reason) == (grpc.StatusCode.FAILED_PRECONDITION, "PROJECT_NOT_EMPTY")
    assert refused.preconditions == [
        ("PROJECT_NOT_EMPTY", "derived"), ("PROJECT_NOT_EMPTY", "sp500_prices")
    ]  # fmt: skip
    shown = await refusal(service.instances.PreviewDeletion(PreviewDeletionRequest(delete_project=request)))
    assert shown == refused
    assert (await get(service, name="research")).state == PROJECT_STATE_ACTIVE


async def test_instances_with_dependants_in_other_projects_are_not_deleted(
    service: RunningInstanceService,
) -> None:
    research, desk = await service.project("research"), await service.project("desk")
    prices = await service.prices(research.project_id)
    one = await service.derived(research.project_id, "one", prices.instance_id)
    two = await service.derived(desk.project_id, "two", one.instance_id)
    three = await service.derived(desk.project_id, "three", two.instance_id)
    request = DeleteProjectRequest(project_id=research.project_id, cascade=True)
    refused = await refusal(service.instances.DeleteProject(request))
    assert (refused.code, refused.reason) == (grpc.StatusCode.FAILED_PRECONDITION, "HAS_DEPENDANTS")
    assert refused.preconditions == [("HAS_DEPENDANTS", "two")]
    assert (await get(service, name="research")).state == PROJECT_STATE_ACTIVE
    for reader in (three, two):
        await service.instances.DeleteInstance(DeleteInstanceRequest(instance_id=reader.instance_id))
    # They go: that is enough, and what they read waits for them.
    assert (await service.instances.DeleteProject(request)).state == PROJECT_STATE_DELETING
    await clear(service, prices, one)
    await eventually(lambda: not service.deployments.stored)
    assert not await is_gone(service, research)
    await clear(service, two, three)
    await eventually(lambda: is_gone(service, research))
    assert (await get(service, name="desk")).state == PROJECT_STATE_ACTIVE


async def test_a_project_is_deleted_with_every_listed_resource(service: RunningInstanceService) -> None:
    empty = await service.row_counts()
    project, other = await service.project("research"), await service.project("other")
    prices = await service.prices(project.project_id)
    derived = await service.derived(project.project_id, "derived", prices.instance_id)
    aside = await service.prices(other.project_id)
    request = DeleteProjectRequest(project_id=project.project_id, cascade=True, reason="over")
    shown = await service.instances.PreviewDeletion(PreviewDeletionRequest(delete_project=request))
    assert [each.instance_id for each in shown.instances] == [derived.instance_id, prices.instance_id]
    await service.prices(project.project_id, "late")
    request.preview_etag = shown.preview_etag
    changed = await refusal(service.instances.DeleteProject(request))
    assert (changed.code, changed.reason) == (grpc.StatusCode.ABORTED, "DELETION_CHANGED")
    shown = await service.instances.PreviewDeletion(PreviewDeletionRequest(delete_project=request))
    assert shown.total_size == 3
    request.preview_etag = shown.preview_etag
    events = await listen(service.nats, "optaic.*.instance.v1.deletion_requested.*")
    deleting = await service.instances.DeleteProject(request)
    assert (deleting.state, deleting.revision) == (PROJECT_STATE_DELETING, 2)
    said = [(await events.next_msg(timeout=5)).subject.rpartition(".")[2] for _ in shown.instances]
    assert said == [each.instance_id for each in shown.instances]
    assert await service.instances.DeleteProject(request) == deleting  # it is under way
    for each in shown.instances:
        await service.clear_lineage(each.instance_id)
    await eventually(lambda: is_gone(service, project))
    await service.instances.DeleteProject(DeleteProjectRequest(project_id=other.project_id, cascade=True))
    await clear(service, aside)
    await eventually(lambda: is_gone(service, other))
    left = await service.row_counts()
    assert left | {"request_replies": 0} == empty | {"request_replies": 0}
    assert not service.deployments.stored


async def test_a_deleting_project_accepts_no_instances_and_its_name_is_free(
    service: RunningInstanceService,
) -> None:
    project = await service.project("research")
    prices = await service.prices(project.project_id)
    await service.instances.DeleteProject(DeleteProjectRequest(project_id=project.project_id, cascade=True))
    for call in (
        service.prices(project.project_id, "late"),
        service.prices(project.project_id, "tried", description="x"),
        update(service, project, name="other"),
    ):
        refused = await refusal(call)
        assert (refused.code, refused.reason) == (grpc.StatusCode.FAILED_PRECONDITION, "PROJECT_DELETING")
    again = await service.project("research")
    assert again.project_id != project.project_id
    assert await get(service, name="research") == again
    assert (await service.prices(again.project_id)).name == "sp500_prices"
    first = await service.instances.ListProjects(ListProjectsRequest(page_size=1))
    second = await service.instances.ListProjects(
        ListProjectsRequest(page_size=1, page_token=first.next_page_token)
    )
    listed = {each.project_id for each in (*first.projects, *second.projects)}
    assert listed == {project.project_id, again.project_id}
    await clear(service, prices)
    await eventually(lambda: is_gone(service, project))
    assert await get(service, name="research") == again


async def test_a_project_is_deleted_even_if_a_process_dies(postgres_server: object, nats_url: str) -> None:
    del postgres_server
    deployments = FakeDeployments()
    async with service_database("instance", "instance_service") as urls:
        async with running(nats_url, urls, deployments) as service:
            project = await service.project("research")
            prices = await service.until_active((await service.prices(project.project_id)).instance_id)
            deployments.break_down()
            request = DeleteProjectRequest(project_id=project.project_id, cascade=True)
            await service.instances.DeleteProject(request)
        async with running(nats_url, urls, deployments) as service:
            found = await get(service, project_id=project.project_id)
            assert found.state == PROJECT_STATE_DELETING
            instance = await service.instances.GetInstance(GetInstanceRequest(instance_id=prices.instance_id))
            assert instance.state == INSTANCE_STATE_DELETING
            deployments.recover()
            await clear(service, prices)
            await eventually(lambda: is_gone(service, project))


async def test_another_tenant_neither_sees_nor_changes_it(service: RunningInstanceService) -> None:
    project = await service.project("research")
    request = UpdateProjectRequest(project=Project(project_id=project.project_id, name="stolen"))
    request.update_mask.paths.append("name")
    calls = (
        service.instances.UpdateProject(request, metadata=OTHER_TENANT),
        service.instances.DeleteProject(
            DeleteProjectRequest(project_id=project.project_id, cascade=True), metadata=OTHER_TENANT
        ),
        service.instances.PreviewDeletion(
            PreviewDeletionRequest(delete_project=DeleteProjectRequest(project_id=project.project_id)),
            metadata=OTHER_TENANT,
        ),
    )
    for call in calls:
        assert (await refusal(call)).reason == "PROJECT_NOT_FOUND"
    assert await get(service, name="research") == project


async def test_hidden_credentials_stay_as_they_were(service: RunningInstanceService) -> None:
    secret = "see https://ann:pa55word@wiki.example"
    request = CreateProjectRequest(project=Project(name="research", description=secret))
    made = await service.instances.CreateProject(request)
    assert "pa55word" not in made.description
    same = await update(service, made, description=made.description, labels={"team": "a"})
    assert (same.revision, same.description) == (2, made.description)
    metadata = (("authorization", "Bearer service-secret"), ("optaic-tenant", "default"))
    kept = await service.instances.GetProject(GetProjectRequest(name="research"), metadata=metadata)
    assert kept.description == secret


async def test_a_project_of_an_earlier_release_is_as_it_was_and_can_be_changed(
    service: RunningInstanceService,
) -> None:
    made = await service.project("research")
    earlier = Project(project_id=made.project_id, name=made.name, create_time=made.create_time)
    async with service.app.deps.database.transaction("default") as connection:
        await store.update_project(
            connection, "default", made.project_id, snapshot=earlier.SerializeToString()
        )
    made.author = ""
    assert await get(service, name="research") == made
    (listed,) = (await service.instances.ListProjects(ListProjectsRequest())).projects
    assert listed == made
    changed = await update(service, made, name="alpha", etag="r1")
    assert (changed.revision, changed.state, changed.name) == (2, PROJECT_STATE_ACTIVE, "alpha")
