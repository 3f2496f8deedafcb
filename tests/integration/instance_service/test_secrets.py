"""A canary in the place of every secret: it is refused and repeated nowhere, neither to the caller nor in log or events."""

from __future__ import annotations

import io
from collections.abc import AsyncIterator, Iterator
from typing import Any

import grpc
import pytest
from google.protobuf import json_format

from devstack.postgres import Postgres
from instance_service.resources.instances import pending
from optaic.apply.documents import read_documents
from optaic.apply.execution import execute, read_existing
from optaic.apply.export import export_documents, unsaid
from optaic.apply.plan import make_plan
from optaic.client import AsyncClient
from optaic.definition.v1.definition_service_pb2 import PublishDefinitionRequest
from optaic.errors import OptaicError
from optaic.instance.v1.instance_pb2 import Instance
from optaic.instance.v1.instance_service_pb2 import (
    DiffInstanceRevisionsRequest,
    GetInstanceRequest,
    ListInstanceRevisionsRequest,
    ListInstancesRequest,
    UpdateInstanceRequest,
)
from support.broker import listen
from support.identities import caller
from support.instance_service import RunningInstanceService, instance_service
from support.logs import logged_by
from support.polling import eventually

CANARY = "k4n4rie-Zx81"
URL = f"postgresql+psycopg://reader:{CANARY}@db.example/prices"


@pytest.fixture
def log() -> Iterator[io.StringIO]:
    """All that the service logs."""
    with logged_by("instance-service", "debug") as text:
        yield text


@pytest.fixture
async def service(
    postgres_server: Postgres, nats_url: str, log: io.StringIO
) -> AsyncIterator[RunningInstanceService]:
    """The service, whose log is kept."""
    del postgres_server, log
    async with instance_service(nats_url) as running:
        yield running


def _dataset(definition: str, config: dict[str, Any]) -> dict[str, Any]:
    return {"dataset": {"pipeline": {"definitionName": definition, "config": config}}}


async def _publish(service: RunningInstanceService, version: str = "1.0.0", **schema: Any) -> Any:
    given = {
        "name": "vendor",
        "kind": "DEFINITION_KIND_PIPELINE",
        "definitionVersion": {
            "version": version,
            "codeRef": "vendor.pipelines:Vendor",
            "parametersSchema": {"type": "object", **schema},
            "flowSpecs": [{"flowKind": "FLOW_KIND_REFRESH", "isDefault": True}],
        },
    }
    return await service.definitions.PublishDefinition(
        json_format.ParseDict(given, PublishDefinitionRequest())
    )


async def _refuse(call: Any) -> None:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call
    assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert CANARY not in repr(caught.value)
    assert CANARY.encode() not in b"".join(
        value if isinstance(value, bytes) else value.encode()
        for _, value in caught.value.trailing_metadata() or ()
    )


async def test_no_answer_event_or_log_line_repeats_a_secret(
    service: RunningInstanceService, log: io.StringIO
) -> None:
    told = await listen(service.nats, "optaic.>")
    secret = {"type": "string", "writeOnly": True, "maxLength": 64}
    await _publish(service, properties={"token": secret, "pin": {"type": "string", "format": "password"}})
    project = await service.project()
    refused = [
        _dataset("sql", {"url": URL, "table": "prices"}),
        _dataset("sql", {"url": [URL], "table": "prices"}),
        _dataset("sql", {"url": URL, "table": "prices", "query": "select 1"}),
        _dataset("sql", {"url": "sqlite:///a", "table": URL}),
        _dataset("file", {"url": f"ftp://reader:{CANARY}@files.example/a.csv"}),
        _dataset("file", {"url": "s3://b/a.csv", "storage_options": {"secret": CANARY}}),
        _dataset("file", {"url": "s3://b/a.csv", "storage_options": CANARY}),
        *(
            _dataset("vendor", {name: value})
            for name in ("token", "pin")
            for value in (CANARY, [CANARY], {CANARY: CANARY}, CANARY * 100)
        ),
        {**_dataset("sp500_prices", {"as_of": URL})},
        {**_dataset("sp500_prices", {}), "labels": {"a": URL}, "schedule": {"cron": {"expression": URL}}},
        {**_dataset("sp500_prices", {}), "description": f"copied from {URL}"},
        _dataset("vendor", {"address": URL}),
        _dataset("vendor", {"more": [{"a": ["b", URL]}]}),
        _dataset("vendor", {"address": URL.replace(CANARY, "***")}),  # as one is shown
        _dataset("vendor", {"address": f"https://files.example/a.csv?sig={CANARY}"}),
        _dataset("vendor", {"address": f"https://{CANARY}@code.example/a.git"}),
    ]
    for given in refused:
        for is_rehearsed in (True, False):
            await _refuse(
                service.create(
                    {"projectId": project.project_id, "name": "x", **given}, validate_only=is_rehearsed
                )
            )
    await _refuse(_publish(service, "2.0.0", properties={"token": {**secret, "default": CANARY}}))
    kept = await service.create(
        {
            "projectId": project.project_id,
            "name": "kept",
            **_dataset("vendor", {"token": "${OPTAIC_SECRET_A}"}),
        }
    )
    await service.until_active(kept.instance_id)
    update = UpdateInstanceRequest(
        instance=json_format.ParseDict(
            {"instanceId": kept.instance_id, **_dataset("vendor", {"token": CANARY})}, Instance()
        )
    )
    update.update_mask.paths.append("dataset.pipeline.config")
    await _refuse(service.instances.UpdateInstance(update))
    async with AsyncClient.connect(
        instance_address=service.app.server.address, token="development"
    ) as client:
        pipeline = {"definition_name": "sql", "config": {"url": URL, "table": "prices"}}
        file = {
            "project": "research", "manager": "m", "instances": [{"name": "y", "dataset": {"pipeline": pipeline}}]
        }  # fmt: skip
        for dry_run in (True, False):
            existing = await read_existing(client)
            actions = make_plan(read_documents([file]), existing)
            with pytest.raises(OptaicError) as caught:
                [each async for each in execute(client, actions, existing, dry_run=dry_run)]
            assert CANARY not in f"{caught.value} {caught.value!r}"
    lines = log.getvalue()
    assert '"refused"' in lines
    assert CANARY not in lines
    heard = [message async for message in _pending(told)]
    assert heard
    assert CANARY.encode() not in b"".join(message.data for message in heard)


async def _pending(subscription: Any) -> AsyncIterator[Any]:
    while subscription.pending_msgs:
        yield await subscription.next_msg()


async def test_stored_urls_of_an_earlier_release_still_work_and_are_hidden(
    service: RunningInstanceService, log: io.StringIO, monkeypatch: pytest.MonkeyPatch
) -> None:
    told = await listen(service.nats, "optaic.*.instance.v1.*.*")
    await _publish(service, properties={"address": {"type": "string"}, "more": {"type": "array"}})
    project = await service.project()
    with monkeypatch.context() as earlier:
        earlier.setattr(pending, "credential_violations", lambda *_: [])
        created = await service.create(
            {
                "projectId": project.project_id,
                "name": "x",
                "description": f"copied from {URL}",
                "labels": {"source": "here"},
                **_dataset("vendor", {"address": URL, "more": [{"a": URL}]}),
            }
        )
        await service.update(
            created.instance_id,
            _dataset("vendor", {"address": URL.replace("prices", "other")}),
            "dataset.pipeline.config",
        )
    diff = await service.instances.DiffInstanceRevisions(
        DiffInstanceRevisionsRequest(instance_id=created.instance_id, from_revision=1, to_revision=2)
    )
    assert any("other" in change.to_value.string_value for change in diff.changes)
    request = GetInstanceRequest(instance_id=created.instance_id)
    shown = await service.instances.GetInstance(request)
    listed = await service.instances.ListInstances(ListInstancesRequest(project_id=project.project_id))
    revisions = await service.instances.ListInstanceRevisions(
        ListInstanceRevisionsRequest(instance_id=created.instance_id)
    )
    assert CANARY not in f"{created}{diff}{shown}{listed}{revisions}"
    assert shown.dataset.pipeline.config["address"] == "postgresql+psycopg://reader:***@db.example/other"

    # What was read is written back: nothing changes, and other fields can.
    shown.owner = "somebody else"
    update = UpdateInstanceRequest(instance=shown)
    update.update_mask.paths.extend(["owner", "description", "dataset"])
    changed = await service.instances.UpdateInstance(update)
    assert (changed.revision, changed.owner) == (shown.revision + 1, "somebody else")
    as_worker = caller("executor")
    clear = await service.instances.GetInstance(request, metadata=as_worker)
    assert clear.dataset.pipeline.config["address"] == URL.replace("prices", "other")
    assert clear.description == f"copied from {URL}"

    await eventually(lambda: told.pending_msgs >= 3)
    heard = b"".join([message.data async for message in _pending(told)])
    assert b"reader:***@db.example" in heard
    assert CANARY.encode() not in heard
    assert CANARY not in log.getvalue()


async def test_an_export_hides_credentials_that_an_earlier_release_stored(
    service: RunningInstanceService, monkeypatch: pytest.MonkeyPatch
) -> None:
    await _publish(service, properties={"address": {"type": "string"}})
    project = await service.project()
    with monkeypatch.context() as earlier:
        earlier.setattr(pending, "credential_violations", lambda *_: [])
        await service.create(
            {"projectId": project.project_id, "name": "x", **_dataset("vendor", {"address": URL})}
        )
    async with AsyncClient.connect(
        instance_address=service.app.server.address, token="development"
    ) as client:
        existing = await read_existing(client)
        exported = export_documents(existing)
        (warning,) = unsaid(existing)
        assert "credentials" in warning
        assert CANARY not in f"{exported}{warning}"
        assert "reader:${OPTAIC_SECRET_REPLACE_ME}@db.example" in str(exported)
        pipeline = {"definition_name": "vendor", "config": {"address": URL}}
        file = {
            "project": project.name, "manager": "m", "instances": [{"name": "x", "dataset": {"pipeline": pipeline}}]
        }  # fmt: skip
        actions = make_plan(read_documents([file]), existing, adopt=True)
        assert not any("config" in path for action in actions for path in action.mask), (
            "it is as the file says"
        )
