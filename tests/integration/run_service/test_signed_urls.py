"""URLs with which the files of runs are read: which are made, what they open, and what they do not."""

from collections.abc import AsyncIterator
from datetime import timedelta
from typing import Any
from urllib.parse import urlsplit

import httpx
import pytest
import pytest_asyncio
from google.protobuf.duration_pb2 import Duration

from devstack import seaweedfs
from devstack.postgres import Postgres
from optaic import storage
from optaic.run.v1 import run_pb2, run_service_pb2
from support.identities import caller
from support.object_store import ObjectStore, installed, needs_server
from support.polling import eventually
from support.run_service import RunningRunService, refused, run_service

ROOT = "s3://optaic/data"
CONTENT = b"what the run wrote"


async def _complete(service: RunningRunService, root: str, *names: str) -> run_pb2.Run:
    """Complete a run with artifacts of these names below a data root."""
    run = await service.submit(service.instances.add())
    started = await service.start(run.run_id)
    return await service.complete_with_files(run.run_id, started.fencing_token, root, *names, content=CONTENT)


async def _sign(service: RunningRunService, run_id: str, name: str, **given: Any) -> Any:
    metadata = given.pop("metadata", None)
    request = run_service_pb2.SignArtifactUrlRequest(run_id=run_id, name=name, **given)
    return await service.runs.SignArtifactUrl(request, metadata=metadata)


async def test_a_file_in_a_folder_has_no_url(service: RunningRunService) -> None:
    run = await _complete(service, "file:///x", "a")
    async with refused("ARTIFACT_NOT_SIGNABLE") as errors:
        await _sign(service, run.run_id, "a")
    assert "lies in a folder" in errors[0].message


async def test_only_a_file_of_the_manifest_has_a_url(service: RunningRunService) -> None:
    run = await _complete(service, "file:///x", "a")
    for name in ("data", "b", "a/b", "../a", "a.txt"):
        async with refused("ARTIFACT_NOT_FOUND"):
            await _sign(service, run.run_id, name)
    async with refused("RUN_NOT_FOUND"):
        await _sign(service, run.run_id, "a", metadata=caller("maintainer", "other"))


@pytest.mark.parametrize("lifetime", [Duration(seconds=0), Duration(seconds=901), Duration(seconds=-1)])
async def test_a_url_lives_fifteen_minutes_at_most(service: RunningRunService, lifetime: Duration) -> None:
    run = await _complete(service, "file:///x", "a")
    async with refused("INVALID_ARGUMENT") as errors:
        await _sign(service, run.run_id, "a", lifetime=lifetime)
    assert [each.field for each in errors[0].field_violations] == ["lifetime"]


async def test_without_a_credential_no_url_is_signed(service: RunningRunService) -> None:
    run = await _complete(service, ROOT, "a")
    async with refused("ARTIFACT_NOT_SIGNABLE") as errors:
        await _sign(service, run.run_id, "a")
    assert "OPTAIC_S3_ACCESS_KEY_ID" in errors[0].message


@pytest_asyncio.fixture
async def signing(
    postgres_server: Postgres, nats_url: str, object_store: ObjectStore
) -> AsyncIterator[RunningRunService]:
    """The service with a credential for the S3 server."""
    del postgres_server
    access = object_store.access(seaweedfs.SIGNER)
    given: dict[str, Any] = {
        "data_root": ROOT,
        "s3_endpoint": access.endpoint,
        "s3_access_key_id": access.access_key_id,
        "s3_secret_access_key": access.secret_access_key,
    }
    with installed(object_store.access(seaweedfs.ADMIN)):
        async with run_service(nats_url, **given) as running:
            yield running


@needs_server
async def test_a_url_reads_its_file_and_nothing_else(
    signing: RunningRunService, object_store: ObjectStore
) -> None:
    run = await _complete(signing, ROOT, "a", "b")
    for name in ("a", "b"):
        storage.write(run.artifacts[name], CONTENT)
    signed = await _sign(signing, run.run_id, "a")
    assert signed.artifact == run.artifact_manifest[0]
    assert signed.expire_time.ToDatetime() == signing.clock.now().replace(tzinfo=None) + timedelta(minutes=5)
    secret = object_store.access(seaweedfs.SIGNER).secret_access_key
    assert secret not in signed.url
    path = urlsplit(signed.url).path
    async with httpx.AsyncClient(timeout=20) as client:
        answer = await client.get(signed.url)
        assert (answer.status_code, answer.content) == (200, CONTENT)
        others = [
            ("PUT", signed.url),
            ("DELETE", signed.url),
            ("POST", signed.url),
            ("GET", signed.url.replace(path, path.replace("a.txt", "b.txt"))),
            ("GET", signed.url.replace(path, "/optaic")),
            ("GET", f"{signed.url}0"),
            ("GET", signed.url.replace("Expires=300", "Expires=900")),
            ("GET", signed.url.partition("?")[0]),
        ]
        for method, url in others:
            refusal = await client.request(method, url)
            assert refusal.status_code in {403, 405}, (method, url, refusal.status_code)
        assert (await client.get(signed.url)).content == CONTENT
        short = await _sign(signing, run.run_id, "b", lifetime=Duration(seconds=1))

        async def is_over() -> bool:
            return (await client.get(short.url)).status_code == 403

        await eventually(is_over)


@needs_server
async def test_a_file_elsewhere_has_no_url(signing: RunningRunService) -> None:
    run = await _complete(signing, ROOT, "a")
    await _sign(signing, run.run_id, "a")
    moved = {"data_root": "s3://optaic/moved"}
    signing.app.deps.settings = signing.app.deps.settings.model_copy(update=moved)
    async with refused("ARTIFACT_NOT_FOUND"):
        await _sign(signing, run.run_id, "a")
