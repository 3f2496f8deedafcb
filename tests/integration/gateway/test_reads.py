"""Rows of tables through the gateway: in three formats, page by page, and only for whoever may read the run."""

from __future__ import annotations

import csv
import io
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import polars as pl
import pytest
import pytest_asyncio

from gateway.caller import caller_of
from optaic import AsyncClient, errors
from optaic.plugins import Store, VersionNotFound
from support.gateway import RunningGateway, gateway_of
from support.gateway_tables import complete_table, get_rows, reason, services_of
from support.identities import caller, token_of
from support.polling import eventually
from support.run_service import TENANT, RunningRunService
from support.tables import prices
from worker.builtin.delta_store import DeltaStore
from worker.builtin.parquet_store import ParquetStore

TABLE = prices(20)


@pytest_asyncio.fixture
async def gateway(service: RunningRunService, tmp_path: Path) -> AsyncIterator[RunningGateway]:
    async with gateway_of(services_of(service), auth="tokens", data_root=str(tmp_path)) as running:
        yield running


@pytest.mark.parametrize("store", [DeltaStore(), ParquetStore()])
async def test_a_version_comes_in_three_formats_and_in_pages(
    service: RunningRunService, gateway: RunningGateway, tmp_path: Path, store: Store
) -> None:
    run = await complete_table(service, tmp_path, store, TABLE)
    path = f"/data/{run.run_id}"
    first = await get_rows(gateway, path, page_size=30)
    body = first.json()
    assert (first.status_code, body["totalRows"], len(body["rows"])) == (200, 40, 30)
    assert body["rows"][0] == {"date": "2020-01-01", "entity": "A", "close": 0.0}
    assert [column["name"] for column in body["columns"]] == ["date", "entity", "close"]
    second = await get_rows(gateway, path, page_size=30, page_token=body["nextPageToken"])
    assert (len(second.json()["rows"]), second.json()["nextPageToken"]) == (10, "")
    arrow = await get_rows(gateway, path, accept="application/vnd.apache.arrow.stream", page_size=30)
    assert pl.read_ipc_stream(arrow.content).equals(TABLE.head(30))
    assert arrow.headers["optaic-next-page-token"] == body["nextPageToken"]
    assert arrow.headers["optaic-total-rows"] == "40"
    text = await get_rows(gateway, path, accept="text/csv", columns="close", entities="B", start="2020-01-20")
    assert list(csv.reader(io.StringIO(text.text))) == [
        ["date", "entity", "close"],
        ["2020-01-20", "B", "19.1"],
    ]
    assert text.headers["content-disposition"] == "attachment"
    listed = await get_rows(gateway, path, entities='["A"]', end="2020-01-02")
    assert [row["close"] for row in listed.json()["rows"]] == [0.0, 1.0]
    head = await gateway.client.head(path, headers=dict(caller("viewer")))
    assert (head.status_code, head.content) == (200, b"")
    found = (await get_rows(gateway, f"{path}/statistics", entities="A")).json()
    close = next(column for column in found["columns"] if column["name"] == "close")
    assert (found["rows"], found["isComplete"], close["max"], close["mean"]) == (20, True, 19.0, 9.5)


async def test_a_file_of_a_run_has_rows_and_statistics(
    service: RunningRunService, gateway: RunningGateway, tmp_path: Path
) -> None:
    written = io.BytesIO()
    TABLE.write_parquet(written)
    run = await complete_table(
        service, tmp_path, DeltaStore(), TABLE, trades=written.getvalue(), note=b"no table"
    )
    path = f"/runs/{run.run_id}/artifacts"
    rows = (await get_rows(gateway, f"{path}/trades/rows", start="2020-01-20")).json()
    assert rows["rows"] == TABLE.tail(2).with_columns(pl.col("date").cast(pl.String)).to_dicts()
    assert "totalRows" not in rows
    found = (await get_rows(gateway, f"{path}/trades/statistics")).json()
    assert (found["rows"], found["totalRows"]) == (40, 40)
    assert reason(await get_rows(gateway, f"{path}/note/rows"))[:2] == (400, "NOT_A_TABLE")
    assert reason(await get_rows(gateway, f"{path}/none/rows"))[:2] == (404, "ARTIFACT_NOT_FOUND")
    place = tmp_path / TENANT / run.instance_id / "refresh" / "runs" / run.run_id / "trades"
    place.write_bytes(written.getvalue() + b"x")
    assert reason(await get_rows(gateway, f"{path}/trades/rows"))[:2] == (500, "ARTIFACT_CORRUPT")
    place.unlink()
    gone = await get_rows(gateway, f"{path}/trades/rows")
    assert reason(gone)[:2] == (503, "DATA_NOT_READABLE")
    assert str(tmp_path) not in gone.text


async def test_only_whoever_may_read_the_run_may_read_its_rows(
    service: RunningRunService, gateway: RunningGateway, tmp_path: Path
) -> None:
    run = await complete_table(service, tmp_path, DeltaStore(), TABLE, a=b"x")
    for path in (
        f"/data/{run.run_id}",
        f"/data/{run.run_id}/statistics",
        f"/runs/{run.run_id}/artifacts/a/rows",
    ):
        assert reason(await get_rows(gateway, path, tenant="other")) == (404, "RUN_NOT_FOUND", "run.optaic")
        assert reason(await get_rows(gateway, path, role="stranger"))[:2] == (401, "UNAUTHENTICATED")
        nobody = await gateway.client.get(path)
        assert reason(nobody) == (401, "UNAUTHENTICATED", "gateway.optaic")
        posted = await gateway.client.post(path, headers=dict(caller("viewer")))
        assert reason(posted)[:2] == (405, "METHOD_NOT_ALLOWED")


async def test_code_of_others_never_runs_here(
    service: RunningRunService, gateway: RunningGateway, tmp_path: Path
) -> None:
    run = await complete_table(service, tmp_path, DeltaStore(), TABLE, code_ref="acme.stores:Own")
    assert reason(await get_rows(gateway, f"/data/{run.run_id}"))[:2] == (400, "STORE_NOT_READ_HERE")


async def test_a_run_without_a_table_has_no_rows(service: RunningRunService, gateway: RunningGateway) -> None:
    run = await service.submit(service.instances.add())
    assert reason(await get_rows(gateway, f"/data/{run.run_id}"))[:2] == (404, "VERSION_NOT_FOUND")


async def test_parameters_that_mean_nothing_are_refused_by_name(
    service: RunningRunService, gateway: RunningGateway, tmp_path: Path
) -> None:
    run = await complete_table(service, tmp_path, DeltaStore(), TABLE)
    path = f"/data/{run.run_id}"
    token = (await get_rows(gateway, path, page_size=5)).json()["nextPageToken"]
    refused: dict[str, tuple[dict[str, Any], str]] = {
        "rows": ({"rows": 5}, "INVALID_ARGUMENT"),
        "page_size": ({"page_size": 10_001}, "INVALID_ARGUMENT"),
        "start": ({"start": "2020-13-01"}, "INVALID_ARGUMENT"),
        "end": ({"end": "yesterday"}, "INVALID_ARGUMENT"),
        "columns": ({"columns": "[1]"}, "INVALID_ARGUMENT"),
        "page_token": ({"page_token": token, "entities": "A"}, "INVALID_PAGE_TOKEN"),
    }
    for field, (parameters, expected) in refused.items():
        answer = await get_rows(gateway, path, **parameters)
        assert reason(answer)[:2] == (400, expected), field
        violations = answer.json()["details"][1]["debug"]["fieldViolations"]
        assert [each["field"] for each in violations] == [field]
    for parameters in (
        {"start": "2021-01-01", "end": "2020-01-01"},
        {"page_token": "x"},
        {"columns": "a," * 2000},
    ):
        assert (await get_rows(gateway, path, **parameters)).status_code == 400
    assert reason(await get_rows(gateway, path, columns="low"))[:2] == (400, "SCHEMA_MISMATCH")
    assert reason(await get_rows(gateway, path, accept="image/png"))[:2] == (406, "NOT_ACCEPTABLE")
    twice = await gateway.client.get(
        f"{path}?start=2020-01-01&start=2020-01-02", headers=dict(caller("viewer"))
    )
    assert reason(twice)[:2] == (400, "INVALID_ARGUMENT")


async def test_a_read_whose_caller_has_gone_ends_and_frees_its_place(
    service: RunningRunService, gateway: RunningGateway, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The process of a read hangs here, as in a storage that does not answer."""
    run = await complete_table(service, tmp_path, DeltaStore(), TABLE)
    monkeypatch.setattr("gateway.reading._MODULE", "support.hanging_reader")
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parents[2]))
    monkeypatch.setenv("HANGING_READER_FILE", str(tmp_path / "pid"))
    reading: Any = gateway.gateway.door._reads._places
    async with httpx.AsyncClient(base_url=gateway.url, trust_env=False, timeout=2) as impatient:
        with pytest.raises(httpx.ReadTimeout):
            await impatient.get(f"/data/{run.run_id}", headers=dict(caller("viewer")))
    await eventually(lambda: reading.taken == 0)
    pids = (tmp_path / "pid").read_text().split() if (tmp_path / "pid").exists() else []
    await eventually(lambda: not any(Path(f"/proc/{pid}").exists() for pid in pids))


async def test_reads_have_places_and_a_deadline(
    service: RunningRunService, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = await complete_table(service, tmp_path, DeltaStore(), TABLE)
    monkeypatch.setattr("gateway.reading._MODULE", "support.hanging_reader")
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parents[2]))
    settings: dict[str, Any] = {"auth": "tokens", "data_root": str(tmp_path), "caller_reads": 1}
    async with gateway_of(services_of(service), read_seconds=1, **settings) as gateway:
        reading: Any = gateway.gateway.door._reads._places
        path = f"/data/{run.run_id}"
        name = caller_of(dict(caller("viewer"))["authorization"], "").name
        with reading.take(name):
            refused = await get_rows(gateway, path)
            assert reason(refused)[:2] == (429, "TOO_MANY_READS")
        assert reason(await get_rows(gateway, path))[:2] == (504, "READ_TIMEOUT")
        assert reading.taken == 0


async def test_whoever_may_not_read_a_table_takes_no_place_of_those_who_read(
    service: RunningRunService, tmp_path: Path
) -> None:
    run = await complete_table(service, tmp_path, DeltaStore(), TABLE)
    settings: dict[str, Any] = {"auth": "tokens", "data_root": str(tmp_path)}
    async with gateway_of(services_of(service), maximum_reads=1, caller_reads=1, **settings) as gateway:
        reading: Any = gateway.gateway.door._reads._places
        path = f"/data/{run.run_id}"
        with reading.take("somebody"):
            assert reason(await get_rows(gateway, path))[:2] == (429, "TOO_MANY_READS")
            assert reason(await get_rows(gateway, path, role="stranger"))[:2] == (401, "UNAUTHENTICATED")
            assert reason(await get_rows(gateway, path, tenant="other"))[:2] == (404, "RUN_NOT_FOUND")


async def test_the_client_reads_a_version_from_the_gateway_where_the_folder_is_out_of_reach(
    service: RunningRunService, gateway: RunningGateway, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    instance = service.instances.add()
    run = await complete_table(service, tmp_path, DeltaStore(), TABLE, instance=instance)

    def is_elsewhere(uri: str, physical_version: str) -> None:
        raise VersionNotFound(f"{uri} {physical_version}")

    monkeypatch.setattr("worker.builtin.delta_store._open", is_elsewhere)
    monkeypatch.setattr("optaic.client.reading.is_out_of_reach", lambda _: True)
    monkeypatch.setattr("optaic.client.gateway_files._PAGE_ROWS", 7)
    monkeypatch.setenv("OPTAIC_GATEWAY_URL", gateway.url)
    addresses = services_of(service)
    async with AsyncClient.connect(
        run_address=service.address, instance_address=addresses["instance"], token=token_of("viewer")
    ) as client:
        flow: Any = instance.instance_id
        given: dict[str, Any] = {"flow_kind": "refresh", "version": run.run_id}
        assert (await client.data.read(flow, **given)).equals(TABLE)
        some = await client.data.read(flow, columns=["close"], entities=["B"], start="2020-01-19", **given)
        assert some.equals(TABLE.filter(entity="B").tail(2))
        with pytest.raises(errors.InvalidArgumentError) as refused:
            await client.data.read(flow, columns=["low"], **given)
        assert refused.value.reason == "SCHEMA_MISMATCH"
