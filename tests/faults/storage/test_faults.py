"""The object store is away, slow, refuses or is cut off while a writer writes, and the writer is killed: nothing is half published."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any

import polars as pl
import pytest
import pytest_asyncio
from deltalake import DeltaTable

from optaic import storage
from servicekit.ids import new_id
from support import campaigns
from support.http_faults import Fault, HttpFaults
from support.leftovers import FAILED, TenantData, tenant_data, unknown_run
from support.object_store import ObjectStore, installed, needs_server
from support.polling import eventually
from support.proxy import Proxy
from support.store_writer import STORES, StoreWriter, make_table
from worker.builtin.parquet_store import ParquetStore

pytestmark = [needs_server, pytest.mark.faults]
ROOT = "s3://optaic/data"
FAULTS: list[Fault] = ["down", "slow", "503"]
SHORT: dict[str, Any] = {"timeout_seconds": 0.4, "patience_seconds": 0.5}
LARGE_KINDS = ["delta", "file", "parquet"] if campaigns.IS_FULL else ["delta"]
_EVER = 10**9
_MOST_REQUESTS = 60


@pytest.fixture
def data(object_store: ObjectStore, tmp_path: Path) -> Iterator[TenantData]:
    with installed(object_store.access()):
        storage.remove_below(f"{ROOT}/default")
        for upload in storage.list_uploads(f"{ROOT}/default"):
            storage.abort_upload(upload)
        with tenant_data(ROOT, tmp_path) as made:
            yield made


@pytest_asyncio.fixture
async def writer(data: TenantData) -> AsyncIterator[StoreWriter]:
    del data
    async with StoreWriter() as running:
        yield running


@asynccontextmanager
async def faults(object_store: ObjectStore) -> AsyncIterator[tuple[HttpFaults, storage.Access]]:
    async with HttpFaults(object_store.endpoint) as proxy:
        yield proxy, object_store.access(endpoint=proxy.url, **SHORT)


def list_contents(kind: str, uri: str) -> list[pl.DataFrame]:
    """Return all versions that a reader can see; each of them must be whole."""
    if kind == "delta":
        newest = DeltaTable(uri, storage_options=storage.table_options(uri)).version()
        return [STORES[kind]().read(uri, str(version)) for version in range(newest + 1)]
    names = [each.path for each in storage.list_files(uri) if each.path.endswith("/manifest.json")]
    return [ParquetStore().read(uri, name.partition("/")[0]) for name in names]


def _is_held(proxy: HttpFaults, writing: asyncio.Task[Any]) -> bool:
    """Return whether a request is held, or the write has ended before."""
    return proxy.struck > 0 or writing.done()


def choose(proxy: HttpFaults, kind: str, fault: str) -> Iterator[int]:
    """Return before which requests of a write the fault comes: each of them, or one that the fault has struck."""
    if campaigns.IS_FULL:
        for after in range(_MOST_REQUESTS):
            yield after
            if not proxy.struck:
                return
        pytest.fail(f"a write makes {_MOST_REQUESTS} requests or more, and the rest was not tried")
    print(kind, fault)  # noqa: T201 - shown if it fails
    drawn, after = campaigns.begin(), 20 if kind == "delta" else 6
    while after:
        after = drawn.randrange(after)
        yield after
        if proxy.struck:
            return
    pytest.fail("no request of the write was struck")


def add_large(data: TenantData, kind: str) -> str:
    """Add an instance, and return where a large write of this kind goes."""
    flow = data.flow(data.add_instance("worker.builtin.parquet_store:ParquetStore"))
    return flow.data_uri if kind in STORES else f"{flow.outputs_uri(unknown_run())}model.bin"


@pytest.mark.parametrize("kind", sorted(STORES))
@pytest.mark.parametrize("fault", FAULTS)
async def test_a_write_from_some_request_on_fails_typed_and_publishes_nothing_half(
    object_store: ObjectStore, data: TenantData, writer: StoreWriter, kind: str, fault: Fault
) -> None:
    async with faults(object_store) as (proxy, access):
        for after in choose(proxy, kind, fault):
            uri = data.flow(new_id()).data_uri
            base = (await writer.write(object_store.access(), kind, uri, 1.0)).version
            proxy.strike(fault, after=after, times=_EVER)
            written = await writer.write(access, kind, uri, 2.0, base)
            proxy.heal()
            contents = list_contents(kind, uri)
            if written.error:
                assert written.error == "StoreUnavailable", written
                assert "Error performing" in written.message, "it must say what happened"
                # Both stores look once more after they have published, so that a whole version may stay which no run names.
                assert len(contents) <= 2, (after, written)
            else:
                assert STORES[kind]().read(uri, written.version).equals(make_table(2.0)), after
            assert any(each.equals(make_table(1.0)) for each in contents)
            assert all(each.equals(make_table(1.0)) or each.equals(make_table(2.0)) for each in contents)
            again = await writer.write(object_store.access(), kind, uri, 3.0, base)
            assert STORES[kind]().read(uri, again.version).equals(make_table(3.0)), after


@pytest.mark.parametrize("kind", sorted(STORES))
@pytest.mark.parametrize("fault", ["503", "lost"])
async def test_one_request_that_fails_or_whose_answer_is_lost_is_made_again(
    object_store: ObjectStore, data: TenantData, writer: StoreWriter, kind: str, fault: Fault
) -> None:
    async with faults(object_store) as (proxy, short):
        del short
        access = object_store.access(endpoint=proxy.url)
        for after in choose(proxy, kind, fault):
            uri = data.flow(new_id()).data_uri
            base = (await writer.write(object_store.access(), kind, uri, 1.0)).version
            proxy.strike(fault, after=after, times=1)
            written = await writer.write(access, kind, uri, 2.0, base)
            proxy.heal()
            assert not written.error, (after, written)
            assert STORES[kind]().read(uri, written.version).equals(make_table(2.0)), after
            assert all(each.height == make_table(2.0).height for each in list_contents(kind, uri))


@pytest.mark.parametrize("kind", LARGE_KINDS)
async def test_a_connection_that_is_cut_within_an_upload_in_parts_leaves_nothing_to_read(
    object_store: ObjectStore, data: TenantData, writer: StoreWriter, kind: str
) -> None:
    uri = add_large(data, kind)
    async with Proxy(object_store.endpoint) as proxy:
        access = object_store.access(endpoint=proxy.url, timeout_seconds=20.0, patience_seconds=0.5)
        proxy.cut_after(11_000_000)
        written = await writer.write(access, kind, uri, 1.0, is_large=True)
        assert written.error == "StoreUnavailable", written
        proxy.heal()
    assert [each for each in storage.list_files(uri) if each.size > 1_000_000] == []
    assert not storage.exists(f"{uri}/_delta_log")
    await data.sweep()
    assert data.list() == set()
    assert list(storage.list_uploads(f"{ROOT}/default")) == []


@pytest.mark.parametrize("kind", sorted(STORES))
async def test_a_writer_that_is_killed_at_a_request_leaves_only_what_a_sweep_removes(
    object_store: ObjectStore, data: TenantData, writer: StoreWriter, kind: str
) -> None:
    async with faults(object_store) as (proxy, short):
        del short
        access = object_store.access(endpoint=proxy.url, timeout_seconds=60.0)
        for after in choose(proxy, kind, "killed"):
            one = data.add_instance("worker.builtin.parquet_store:ParquetStore")
            run_id = data.add_run(one, FAILED)
            uri = data.flow(one).data_uri
            base = (await writer.write(object_store.access(), kind, uri, 1.0)).version
            before = data.list(one)
            proxy.strike("slow", after=after, times=_EVER)
            writing = asyncio.create_task(writer.write(access, kind, uri, 2.0, base))
            await eventually(partial(_is_held, proxy, writing))
            await writer.kill()
            await asyncio.gather(writing, return_exceptions=True)
            await writer.start()
            proxy.heal()
            storage.write(f"{data.flow(one).outputs_uri(run_id)}half", b"x")
            assert not (await data.sweep()).problems
            contents = list_contents(kind, uri)
            assert any(each.equals(make_table(1.0)) for each in contents)
            assert all(each.equals(make_table(1.0)) or each.equals(make_table(2.0)) for each in contents)
            if len(contents) == 1:
                assert data.list(one) == before, after


@pytest.mark.parametrize("kind", LARGE_KINDS)
async def test_a_writer_that_is_killed_within_an_upload_in_parts_leaves_only_what_a_sweep_removes(
    object_store: ObjectStore, data: TenantData, writer: StoreWriter, kind: str
) -> None:
    uri = add_large(data, kind)
    async with faults(object_store) as (proxy, short):
        del short
        proxy.strike("slow", after=0, times=_EVER, at="partNumber=")
        access = object_store.access(endpoint=proxy.url, timeout_seconds=60.0)
        writing = asyncio.create_task(writer.write(access, kind, uri, 1.0, is_large=True))
        await eventually(partial(_is_held, proxy, writing), 60)
        assert not writing.done()
        await writer.kill()
        await asyncio.gather(writing, return_exceptions=True)
    assert data.list() == set()
    assert len(list(storage.list_uploads(f"{ROOT}/default"))) == 1
    await data.sweep()
    assert list(storage.list_uploads(f"{ROOT}/default")) == []
