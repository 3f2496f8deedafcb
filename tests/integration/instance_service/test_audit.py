"""Each call that changes something leaves one audit record, and nobody can change it unnoticed."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from typing import Any

import grpc
import psycopg
import pytest
import sqlalchemy as sa

from devstack.postgres import Postgres
from optaic.audit.v1 import audit_service_pb2 as api
from optaic.audit.v1.audit_pb2 import (
    AUDIT_DECISION_ALLOWED,
    AUDIT_DECISION_DENIED,
    AUDIT_DECISION_UNCHANGED,
    AuditEntry,
    AuditRecord,
)
from optaic.audit.v1.audit_service_pb2_grpc import AuditServiceStub
from optaic.client import AsyncClient
from optaic.client.audit import TrailVerification
from optaic.instance.v1.instance_pb2 import Project
from optaic.instance.v1.instance_service_pb2 import (
    CreateProjectRequest,
    DeleteInstanceRequest,
    DeleteProjectRequest,
    PauseInstanceRequest,
    ResumeInstanceRequest,
    UpdateProjectRequest,
)
from servicekit.audit import storage
from servicekit.audit.denials import Denials
from servicekit.audit.sealing import Sealer
from servicekit.context import RequestContext
from support.clock import FakeClock
from support.counterparts import FakeDeployments
from support.identities import caller, tokens_file
from support.instance_service import RunningInstanceService, instance_database, refusal, running
from support.polling import eventually

METHOD = "optaic.instance.v1.InstanceService/"


async def entries(service: RunningInstanceService, **filters: Any) -> list[AuditEntry]:
    assert service.app.server.address
    async with grpc.aio.insecure_channel(service.app.server.address) as channel:
        stub: Any = AuditServiceStub(channel)
        answer = await stub.ListAuditRecords(api.ListAuditRecordsRequest(page_size=1000, **filters))
        return list(answer.entries)


async def records(service: RunningInstanceService, **filters: Any) -> list[AuditRecord]:
    return [entry.record for entry in await entries(service, **filters)]


async def verify(service: RunningInstanceService) -> TrailVerification:
    """Verify everything once all records are sealed."""

    async def is_sealed() -> bool:
        return not await entries(service, unsealed=True)

    await eventually(is_sealed)
    async with AsyncClient.connect(instance_address=service.app.server.address) as client:
        return await client.audit.verify_service("instance")


def summary(record: AuditRecord) -> tuple[str, int, int, str]:
    return (
        record.method.removeprefix(METHOD),
        record.revision_before,
        record.revision_after,
        record.reason,
    )


async def test_each_change_leaves_one_record_with_its_revisions_and_reason(
    service: RunningInstanceService,
) -> None:
    project = await service.project()
    created = await service.prices(project.project_id)
    active = await service.until_active(created.instance_id)
    await service.instances.PauseInstance(
        PauseInstanceRequest(instance_id=created.instance_id, reason="market closed")
    )
    await service.instances.ResumeInstance(ResumeInstanceRequest(instance_id=created.instance_id))
    await service.update(created.instance_id, {"labels": {"team": "a"}}, "labels", reason="moved")
    await service.instances.DeleteInstance(
        DeleteInstanceRequest(instance_id=created.instance_id, reason="wrong data")
    )
    found = await records(service, resource=f"instances/{created.instance_id}")
    assert [summary(record)[0] for record in found] == [
        "CreateInstance",
        "PauseInstance",
        "ResumeInstance",
        "UpdateInstance",
        "DeleteInstance",
    ]
    assert summary(found[0])[1:] == (0, 1, "")
    assert summary(found[1])[1:] == (active.revision, active.revision + 1, "market closed")
    assert found[3].reason == "moved"
    assert found[4].reason == "wrong data"
    for record in found:
        assert record.revision_after == record.revision_before + 1
        assert record.decision == AUDIT_DECISION_ALLOWED
        assert (record.tenant_id, record.actor, record.peer, record.count) == (
            "default",
            "developer",
            "127.0.0.1",
            1,
        )
        assert record.request_id
        assert "admin" in record.roles


async def test_projects_name_their_author(service: RunningInstanceService) -> None:
    project = await service.project()
    assert project.author == "developer"
    request = UpdateProjectRequest(project=Project(project_id=project.project_id, description="new"))
    request.update_mask.paths.append("description")
    updated = await service.instances.UpdateProject(request)
    assert (updated.revision, updated.author) == (2, "developer")
    await service.instances.DeleteProject(DeleteProjectRequest(project_id=project.project_id, reason="done"))
    found = await records(service, resource=f"projects/{project.project_id}")
    assert [summary(record) for record in found] == [
        ("CreateProject", 0, 1, ""),
        ("UpdateProject", 1, 2, ""),
        ("DeleteProject", 2, 3, "done"),
    ]


async def test_a_repeated_request_leaves_a_record_without_a_change(service: RunningInstanceService) -> None:
    request = CreateProjectRequest(project=Project(name="research"), request_id="d" * 8)
    first = await service.instances.CreateProject(request)
    assert await service.instances.CreateProject(request) == first
    allowed, repeated = await records(service, method=f"{METHOD}CreateProject")
    assert (allowed.decision, allowed.resource) == (AUDIT_DECISION_ALLOWED, f"projects/{first.project_id}")
    assert (repeated.decision, repeated.resource) == (AUDIT_DECISION_UNCHANGED, "")


async def test_refused_and_tried_calls_leave_no_record(service: RunningInstanceService) -> None:
    await service.project("research")
    before = await records(service)
    assert (await refusal(service.project("research"))).reason == "NAME_TAKEN"
    request = CreateProjectRequest(project=Project(name="other"), validate_only=True)
    await service.instances.CreateProject(request)
    assert await records(service) == before


async def test_records_are_listed_page_by_page_and_by_time(service: RunningInstanceService) -> None:
    made = [await service.project(f"project-{index}") for index in range(5)]
    found = [record async for record in _pages(service)]
    assert [record.resource for record in found] == [f"projects/{one.project_id}" for one in made]
    middle = found[2].time
    since = await records(service, begin_time=middle)
    assert since == found[2:]
    assert await records(service, end_time=middle) == found[:2]
    assert await records(service, actor="nobody") == []


async def _pages(service: RunningInstanceService) -> Any:
    async with grpc.aio.insecure_channel(service.app.server.address) as channel:
        stub: Any = AuditServiceStub(channel)
        request = api.ListAuditRecordsRequest(page_size=2)
        while True:
            answer = await stub.ListAuditRecords(request)
            for entry in answer.entries:
                yield entry.record
            if not answer.next_page_token:
                return
            request.page_token = answer.next_page_token


async def test_a_trail_of_many_records_verifies(service: RunningInstanceService) -> None:
    for index in range(12):
        await service.project(f"project-{index}")
    verification = await verify(service)
    assert not verification.problems
    assert verification.sealed_records >= 12
    assert len(bytes.fromhex(verification.head)) == 32


@pytest.mark.parametrize(
    "statement",
    [
        "update audit_records set content = content || 'x'::bytea where sequence = 2",
        "delete from audit_records where sequence = 2",
        "delete from audit_records where sequence = (select max(sequence) from audit_records)",
        "update audit_records set sequence = -sequence where sequence in (1, 2)",
        "delete from audit_seals where seal_number = 1",
        "delete from audit_seals",
        "update audit_seals set merkle_root = hash where seal_number = 1",
        "update audit_seals set last_sequence = last_sequence + 1 where seal_number = 1",
    ],
)
async def test_a_sealed_record_cannot_be_changed_unnoticed(
    service: RunningInstanceService, statement: str
) -> None:
    for index in range(4):
        await service.project(f"project-{index}")
    assert not (await verify(service)).problems
    await _as_superuser(service, [statement])
    assert (await verify(service)).problems


@pytest.mark.parametrize("login", ["app", "infra"])
@pytest.mark.parametrize(
    "statement",
    [
        "update audit_records set content = ''",
        "update audit_records set actor = ''",
        "delete from audit_records",
        "truncate audit_records",
        "update audit_seals set hash = ''",
        "delete from audit_seals",
    ],
)
async def test_no_login_of_the_service_changes_or_removes_records(
    service: RunningInstanceService, login: str, statement: str
) -> None:
    url = service.owner_url.replace("+psycopg", "").replace("instance_owner", f"instance_{login}")
    async with await psycopg.AsyncConnection.connect(url) as connection:
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            await connection.execute(statement)


async def _as_superuser(service: RunningInstanceService, statements: Sequence[str]) -> None:
    url = service.owner_url.replace("+psycopg", "").replace("instance_owner", "postgres")
    async with await psycopg.AsyncConnection.connect(url) as connection:
        for statement in statements:
            changed = await connection.execute(statement)
            assert changed.rowcount > 0


async def test_an_interrupted_sealing_seals_nothing_and_the_next_one_seals_everything(
    service: RunningInstanceService, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def fail(*_: object) -> None:
        raise ConnectionError

    with monkeypatch.context() as broken:
        broken.setattr(storage, "insert_seals", fail)
        for index in range(4):
            await service.project(f"project-{index}")
        sealer = Sealer(service.app.deps.database, service.app.deps.clock)
        with contextlib.suppress(ConnectionError):  # or the service's own sealer is at work, and fails alike
            await sealer.step()
        assert len(await entries(service, unsealed=True)) == 4
        assert await entries(service, after_sequence=0) == []
    verification = await verify(service)
    assert not verification.problems
    assert verification.sealed_records == 4


async def test_denied_calls_leave_one_record_for_each_caller_method_and_minute(
    postgres_server: Postgres, nats_url: str
) -> None:
    del postgres_server
    async with instance_database() as urls:
        async with running(nats_url, urls, FakeDeployments(), tokens_file=tokens_file()) as service:
            denied = CreateProjectRequest(project=Project(name="research"))
            for _ in range(3):
                answer = await refusal(service.instances.CreateProject(denied, metadata=caller("viewer")))
                assert answer.reason == "PERMISSION_DENIED"
            await refusal(service.instances.CreateProject(denied, metadata=(("authorization", "Bearer x"),)))
        # What is not written yet is written when the service stops.
        async with running(nats_url, urls, FakeDeployments()) as service:
            found = await records(service)
    assert [(record.actor, list(record.roles), record.resource) for record in found] == [
        ("viewer", ["viewer"], "") for _ in found
    ]
    assert {record.decision for record in found} == {AUDIT_DECISION_DENIED}
    assert sum(record.count for record in found) == 3
    assert len(found) <= 2  # two, where a minute ended between the calls


async def test_denials_of_a_minute_are_counted_in_one_record(service: RunningInstanceService) -> None:
    clock = FakeClock()
    denials = Denials(service.app.deps.database, clock)
    request = RequestContext("acme", "eve", "1", "", frozenset({"viewer"}))
    for _ in range(1_000):
        denials.count(request, "/optaic.run.v1.RunService/CancelRun", "ipv4:10.0.0.7:41234")
    await denials.step()
    assert await service.row_counts("audit_records") == {"audit_records": 0}
    clock.advance(120)
    denials.count(request, "/optaic.run.v1.RunService/CancelRun", "ipv4:10.0.0.7:41234")
    await denials.step()
    assert await service.row_counts("audit_records") == {"audit_records": 1}
    await denials.close()
    assert await service.row_counts("audit_records") == {"audit_records": 2}


async def test_the_denied_calls_of_a_tenant_leave_room_for_those_of_another(
    service: RunningInstanceService,
) -> None:
    clock = FakeClock()
    denials = Denials(service.app.deps.database, clock)
    for tenant_id, callers in (("acme", 20_000), ("other", 1)):
        for number in range(callers):
            request = RequestContext(tenant_id, f"caller{number}", "1", "", frozenset({"viewer"}))
            denials.count(request, "/optaic.run.v1.RunService/CancelRun", "ipv4:10.0.0.7:41234")
    await denials.close()
    async with service.app.deps.database.infra() as connection:
        counted = sa.text("select tenant_id, count(*) from audit_records group by tenant_id")
        assert dict((await connection.execute(counted)).tuples().all()) == {"acme": 1_000, "other": 1}
