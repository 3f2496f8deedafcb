"""Files of runs through the gateway: whole, in parts, and never another tenant's or another file."""

from __future__ import annotations

import hashlib
import io
import os
import threading
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import polars as pl
import pytest
import pytest_asyncio

from devstack.postgres import Postgres
from gateway.files import Opened
from optaic import AsyncClient, errors
from optaic.client.runs import RunHandle
from optaic.common.v1 import flow_pb2
from optaic.run.v1 import data_move_service_pb2 as move_api
from optaic.run.v1 import run_pb2, run_service_pb2
from support.gateway import RunningGateway, gateway_of
from support.identities import caller, token_of
from support.polling import eventually
from support.run_service import TENANT, RunningRunService, run_service

CONTENT = os.urandom(700_000)
HASH = hashlib.sha256(CONTENT).hexdigest()


@pytest_asyncio.fixture
async def gateway(service: RunningRunService, tmp_path: Path) -> AsyncIterator[RunningGateway]:
    async with gateway_of(only(service), auth="tokens", data_root=str(tmp_path)) as running:
        yield running


def only(service: RunningRunService) -> dict[str, str]:
    """Return the addresses of a run-service and of no other service."""
    return {**dict.fromkeys(("instance", "lineage", "status"), "127.0.0.1:1"), "run": service.address}


async def complete(
    service: RunningRunService, root: Path, name: str = "a", content: bytes = CONTENT
) -> tuple[run_pb2.Run, Path]:
    """Complete a run that has written a file; return both."""
    run = await service.submit(service.instances.add())
    started = await service.start(run.run_id)
    flow = root / TENANT / run.instance_id / "refresh"
    place = flow / "runs" / run.run_id / f"{name}.bin"
    place.parent.mkdir(parents=True)
    place.write_bytes(content)
    entry = run_pb2.Artifact(name=name, uri=str(place), size_bytes=len(content))
    entry.sha256 = hashlib.sha256(content).hexdigest()
    entry.media_type = "text/html"
    ended = await service.complete(
        run.run_id,
        started.fencing_token,
        output_version=flow_pb2.VersionRef(uri=str(flow / "data"), digest="d"),
        outputs_uri=f"{place.parent}/",
        artifacts={name: str(place)},
        artifact_manifest=[entry],
    )
    return ended, place


async def get(
    gateway: RunningGateway,
    run: run_pb2.Run,
    name: str = "a",
    role: str = "viewer",
    tenant: str = TENANT,
    **headers: str,
) -> httpx.Response:
    given = {**dict(caller(role, tenant)), **{key.replace("_", "-"): value for key, value in headers.items()}}
    return await gateway.client.get(f"/runs/{run.run_id}/artifacts/{name}", headers=given)


def reason(answer: httpx.Response) -> tuple[int, Any, Any]:
    info = answer.json()["details"][0]["debug"]
    return answer.status_code, info["reason"], info["domain"]


async def test_a_file_comes_whole_and_in_parts(
    service: RunningRunService, gateway: RunningGateway, tmp_path: Path
) -> None:
    run, _ = await complete(service, tmp_path)
    whole = await get(gateway, run)
    assert (whole.status_code, whole.content) == (200, CONTENT)
    assert whole.headers["content-length"] == str(len(CONTENT))
    assert whole.headers["etag"] == f'"{HASH}"'
    assert whole.headers["repr-digest"].startswith("sha-256=:")
    # What a run has written is never a page of ours.
    assert whole.headers["content-disposition"].startswith("attachment")
    assert whole.headers["x-content-type-options"] == "nosniff"
    assert "sandbox" in whole.headers["content-security-policy"]
    part = await get(gateway, run, range="bytes=100-299999")
    assert (part.status_code, part.content) == (206, CONTENT[100:300_000])
    assert part.headers["content-range"] == f"bytes 100-299999/{len(CONTENT)}"
    assert (await get(gateway, run, range="bytes=-5")).content == CONTENT[-5:]
    beyond = await get(gateway, run, range=f"bytes={len(CONTENT)}-")
    assert reason(beyond)[:2] == (416, "RANGE_NOT_SATISFIABLE")
    assert (await get(gateway, run, if_none_match=f'"{HASH}"')).status_code == 304
    head = await gateway.client.head(f"/runs/{run.run_id}/artifacts/a", headers=dict(caller("viewer")))
    assert (head.headers["content-length"], head.content) == (str(len(CONTENT)), b"")


async def test_only_whoever_may_read_the_run_may_read_its_files(
    service: RunningRunService, gateway: RunningGateway, tmp_path: Path
) -> None:
    run, _ = await complete(service, tmp_path)
    other = await get(gateway, run, tenant="other")
    assert reason(other) == (404, "RUN_NOT_FOUND", "run.optaic")
    assert reason(await get(gateway, run, role="stranger")) == (401, "UNAUTHENTICATED", "run.optaic")
    assert reason(await get(gateway, run, role="executor"))[:2] == (403, "PERMISSION_DENIED")
    nobody = await gateway.client.get(f"/runs/{run.run_id}/artifacts/a")
    assert reason(nobody) == (401, "UNAUTHENTICATED", "gateway.optaic")
    for name in ("b", "a.bin", "../a", "..%2f..%2fa", "a%2f..%2fa", "%00", "a/b"):
        answer = await get(gateway, run, name)
        assert answer.status_code == 404, name


@pytest.mark.parametrize("how", ["file", "folder", "pipe", "folder in place of the file"])
async def test_what_is_put_in_place_of_the_file_is_not_opened(
    service: RunningRunService, gateway: RunningGateway, tmp_path: Path, how: str
) -> None:
    """The gateway may read what the run's code may not: a link would lead it there."""
    run, place = await complete(service, tmp_path)
    secret = tmp_path / "another tenant" / place.name
    secret.parent.mkdir()
    secret.write_bytes(CONTENT)
    place.unlink()
    if how == "file":
        place.symlink_to(secret)
    elif how == "folder":
        place.parent.rmdir()
        place.parent.symlink_to(secret.parent)
    elif how == "pipe":
        os.mkfifo(place)
    else:
        place.mkdir()
    answer = await get(gateway, run)
    assert reason(answer)[:2] == (503, "ARTIFACT_NOT_READABLE")
    assert str(tmp_path) not in answer.text


async def test_a_file_that_is_another_one_is_not_taken_for_it(
    service: RunningRunService, gateway: RunningGateway, tmp_path: Path
) -> None:
    run, place = await complete(service, tmp_path)
    place.write_bytes(CONTENT[:-1] + bytes([CONTENT[-1] ^ 1]))
    with pytest.raises(httpx.RemoteProtocolError):  # it ends before its length is reached
        await get(gateway, run)
    place.write_bytes(CONTENT[:-1])
    assert reason(await get(gateway, run))[:2] == (500, "ARTIFACT_CORRUPT")
    place.unlink()
    assert reason(await get(gateway, run))[:2] == (503, "ARTIFACT_NOT_READABLE")


async def test_a_file_whose_caller_has_gone_is_read_no_further(
    service: RunningRunService, gateway: RunningGateway, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run, _ = await complete(service, tmp_path)
    streams: Any = gateway.gateway.door._places[True]
    has_gone = threading.Event()
    counts = []
    read = Opened.read

    def wait_from_the_second_on(self: Opened, count: int) -> bytes:
        counts.append(count)
        if len(counts) > 1:
            has_gone.wait()
        return read(self, count)

    monkeypatch.setattr(Opened, "read", wait_from_the_second_on)
    monkeypatch.setattr("gateway.downloads._READ_SECONDS", 3600)  # a read that hangs ends nothing
    try:
        path = f"/runs/{run.run_id}/artifacts/a"
        async with gateway.client.stream("GET", path, headers=dict(caller("viewer"))) as answer:
            assert await anext(answer.aiter_raw())
            assert streams.taken == 1
        await eventually(lambda: streams.taken == 0)
    finally:
        has_gone.set()
    assert len(counts) == 2


async def test_the_client_takes_a_file_from_the_gateway_where_it_cannot_reach_the_folder(
    service: RunningRunService,
    gateway: RunningGateway,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    table = pl.DataFrame({"date": [1, 2], "value": [0.5, 1.5]})
    written = io.BytesIO()
    table.write_parquet(written)
    run, place = await complete(service, tmp_path, content=written.getvalue())

    def is_elsewhere(uri: str) -> bytes:
        raise FileNotFoundError(uri)

    monkeypatch.setattr("optaic.storage.read", is_elsewhere)
    monkeypatch.setattr("optaic.client.reading.is_out_of_reach", lambda _: True)
    monkeypatch.setenv("OPTAIC_GATEWAY_URL", gateway.url)
    async with AsyncClient.connect(run_address=service.address, token=token_of("viewer")) as client:
        handle = RunHandle(client.runs, await client.runs.get(run.run_id))
        assert (await handle.artifact("a")).equals(table)
        place.unlink()
        with pytest.raises(errors.UnavailableError) as refused:
            await handle.artifact("a")
        assert refused.value.reason == "ARTIFACT_NOT_READABLE"
        monkeypatch.setenv("OPTAIC_GATEWAY_URL", "http://192.0.2.1:80")
        with pytest.raises(errors.FailedPreconditionError) as unsafe:
            await handle.artifact("a")
        assert unsafe.value.reason == "PLAINTEXT_REFUSED"


KEY = "k" * 40


@pytest_asyncio.fixture
async def signing(
    postgres_server: Postgres, nats_url: str, tmp_path: Path
) -> AsyncIterator[tuple[RunningRunService, RunningGateway]]:
    """Yield a run-service that signs URLs, and the gateway that answers them, with one clock."""
    del postgres_server
    given: dict[str, Any] = {"data_root": str(tmp_path), "artifact_url_key": KEY}
    async with (
        run_service(nats_url, gateway_url="https://gateway.example", **given) as running,
        gateway_of(only(running), clock=running.clock, auth="tokens", **given) as gateway,
    ):
        yield running, gateway


async def sign(service: RunningRunService, run: run_pb2.Run) -> str:
    """Return the path of a signed URL."""
    request = run_service_pb2.SignArtifactUrlRequest(run_id=run.run_id, name="a")
    signed = await service.runs.SignArtifactUrl(request, metadata=caller("viewer"))
    url = str(signed.url)
    assert url.startswith("https://gateway.example/artifacts/")
    return url.removeprefix("https://gateway.example")


async def test_a_signed_url_reads_its_file_without_a_token_until_its_time_is_over(
    signing: tuple[RunningRunService, RunningGateway], tmp_path: Path
) -> None:
    service, gateway = signing
    run, place = await complete(service, tmp_path)
    path = await sign(service, run)
    whole = await gateway.client.get(path)
    assert (whole.status_code, whole.content) == (200, CONTENT)
    assert whole.headers["content-disposition"].startswith("attachment")
    assert (await gateway.client.get(path, headers={"range": "bytes=-5"})).content == CONTENT[-5:]
    for method in ("POST", "PUT", "DELETE"):
        assert reason(await gateway.client.request(method, path))[:2] == (405, "METHOD_NOT_ALLOWED")
    changed = path[:-30] + ("A" if path[-30] != "A" else "B") + path[-29:]
    for other in (changed, "/artifacts/", "/artifacts/../runs", f"{path}/x"):
        answer = await gateway.client.get(other)
        assert answer.status_code in {403, 404}, other
    place.write_bytes(CONTENT[:-1])
    assert reason(await gateway.client.get(path))[:2] == (500, "ARTIFACT_CORRUPT")
    service.clock.advance(301)
    assert reason(await gateway.client.get(path)) == (403, "URL_NOT_VALID", "gateway.optaic")


async def test_a_signed_url_follows_no_link_and_stands_in_no_log(
    signing: tuple[RunningRunService, RunningGateway], tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    service, gateway = signing
    run, place = await complete(service, tmp_path)
    path = await sign(service, run)
    secret = tmp_path / "another tenant"
    secret.write_bytes(CONTENT)
    place.unlink()
    place.symlink_to(secret)
    assert reason(await gateway.client.get(path))[:2] == (503, "ARTIFACT_NOT_READABLE")
    printed = "".join(capfd.readouterr())
    assert path.rpartition("/")[2] not in printed


async def test_a_gateway_without_the_key_answers_no_signed_url(
    signing: tuple[RunningRunService, RunningGateway], gateway: RunningGateway, tmp_path: Path
) -> None:
    service, _ = signing
    run, _ = await complete(service, tmp_path)
    assert reason(await gateway.client.get(await sign(service, run)))[:2] == (403, "URL_NOT_VALID")


async def move(service: RunningRunService, former: Path, root: Path) -> None:
    """Let run-service read all data of the tenant below another folder."""
    roots: dict[str, Any] = {"from_root": str(former), "to_root": str(root)}
    await service.moves.BeginDataMove(move_api.BeginDataMoveRequest(**roots))
    await service.moves.SwitchDataMove(move_api.SwitchDataMoveRequest(**roots))
    switched = move_api.DataMove.STATE_SWITCHED
    await service.moves.EndDataMove(move_api.EndDataMoveRequest(**roots, expected_state=switched))


async def test_a_moved_tenants_file_is_read_where_it_was_moved_to(
    signing: tuple[RunningRunService, RunningGateway],
    tmp_path: Path,
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    service, gateway = signing
    run, place = await complete(service, tmp_path)
    moved = tmp_path_factory.mktemp("moved")
    copy = moved / place.relative_to(tmp_path)
    copy.parent.mkdir(parents=True)
    copy.write_bytes(CONTENT)
    place.write_bytes(CONTENT[::-1])  # whoever opens the old one notices
    await move(service, tmp_path, moved)
    path = await sign(service, run)
    assert reason(await get(gateway, run))[:2] == (400, "DATA_ROOT_NOT_SERVED")
    assert reason(await gateway.client.get(path))[:2] == (400, "DATA_ROOT_NOT_SERVED")
    async with gateway_of(
        only(service),
        clock=service.clock,
        auth="tokens",
        artifact_url_key=KEY,
        data_root=str(tmp_path),
        further_data_roots=(str(moved),),
    ) as both:
        for answer in (await get(both, run), await both.client.get(path)):
            assert (answer.status_code, answer.content) == (200, CONTENT)
        copy.unlink()
        assert reason(await both.client.get(path))[:2] == (503, "ARTIFACT_NOT_READABLE")
