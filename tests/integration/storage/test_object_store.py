"""Data in a real S3 server: what stores keep there, what a credential reaches, and who wins."""

import datetime as dt
import re
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import grpc
import polars as pl
import pytest
from deltalake import DeltaTable

from devstack import checks
from devstack.ports import HOST
from optaic import storage
from optaic.plugins import Store, StoredVersion, StoreUnavailable, VersionNotFound
from optaic.plugins.errors import WriteConflict
from servicekit.ids import new_id
from support.object_store import ObjectStore, installed, needs_server
from worker.builtin.delta_store import DeltaStore
from worker.builtin.kept_digests import find_days
from worker.builtin.parquet_store import ParquetStore
from worker.data_removal import Removal, check_place, remove_by_stores, remove_rest
from worker.locations import FlowLocation, copy_folder
from worker.written_files import list_files

pytestmark = needs_server
ROOT = "s3://optaic/data"
STORES: dict[str, Callable[[], Store]] = {"delta": DeltaStore, "parquet": ParquetStore}
DAYS = [dt.date(2024, 1, day) for day in range(1, 11)]


def table(days: list[dt.date], close: float = 1.0) -> pl.DataFrame:
    return pl.DataFrame({"date": days, "entity": ["a"] * len(days), "close": [close] * len(days)})


@pytest.fixture(autouse=True)
def _tenant(object_store: ObjectStore) -> Iterator[None]:
    with installed(object_store.access()):
        yield


@pytest.fixture
def uri(request: pytest.FixtureRequest) -> str:
    return f"{ROOT}/default/{request.node.name.replace('[', '-').replace(']', '')}/refresh/data"


@pytest.fixture(params=sorted(STORES))
def make(request: pytest.FixtureRequest) -> Callable[[], Store]:
    return STORES[request.param]


def write_history(store: Store, uri: str) -> list[StoredVersion]:
    first = store.write(table(DAYS[:5]), None, uri)
    more = store.write_part(table(DAYS), DAYS[5], first.physical_version, uri)
    other = store.write(table(DAYS, 2.0), more.physical_version, uri)
    return [first, more, other, store.write(table(DAYS, 2.0), other.physical_version, uri)]


def test_versions_are_those_of_a_folder(make: Callable[[], Store], uri: str, tmp_path: Path) -> None:
    there, here = (write_history(make(), place) for place in (uri, tmp_path.as_uri()))
    for one, other in zip(there, here, strict=True):
        assert (one.digest, one.physical_version, one.changed) == (
            other.digest,
            other.physical_version,
            other.changed,
        )
    for version, content in zip(there, (table(DAYS[:5]), table(DAYS), table(DAYS, 2.0)), strict=False):
        assert make().read(uri, version.physical_version).equals(content)
        assert make().read_types(uri, version.physical_version) == content.schema
        late = make().read_from(uri, version.physical_version, DAYS[4])
        assert late.filter(pl.col("date") >= DAYS[4]).equals(content.filter(pl.col("date") >= DAYS[4]))
    with pytest.raises(VersionNotFound):
        make().read(uri, "f" * 64 if make is ParquetStore else "99")


def test_the_digests_of_days_are_kept_beside_a_table(uri: str) -> None:
    version = DeltaStore().write(table(DAYS), None, uri)
    snapshot = DeltaTable(uri, storage_options=storage.table_options(uri))
    kept = find_days(uri, snapshot)
    assert kept is not None
    assert kept.digest == version.digest


def test_a_foreign_credential_reaches_nothing(object_store: ObjectStore, uri: str) -> None:
    version = DeltaStore().write(table(DAYS), None, uri)
    storage.write(f"{uri}/more", b"1")
    attacks: list[Callable[[], object]] = [
        lambda: storage.read(f"{uri}/more"),
        lambda: storage.write(f"{uri}/new", b"2"),
        lambda: storage.write(f"{uri}/large", bytes(20_000_000)),
        lambda: storage.publish(f"{uri}/new", b"2"),
        lambda: storage.size_of(f"{uri}/more"),
        lambda: storage.list_folders(uri),
        lambda: list(storage.list_files(f"{ROOT}/default")),
        lambda: list(storage.list_files(ROOT)),
        lambda: list(storage.list_files("s3://optaic")),
        lambda: storage.remove_file(f"{uri}/more"),
        lambda: storage.remove_below(uri),
        lambda: storage.write(f"{ROOT}/beta2/new", b"2"),
        lambda: DeltaStore().write(table(DAYS, 3.0), version.physical_version, uri),
        lambda: DeltaStore().read(uri, version.physical_version),
    ]
    with installed(object_store.access("beta", patience_seconds=1.0)):
        for attack in attacks:
            with pytest.raises((StoreUnavailable, VersionNotFound)):
                attack()
        storage.write(f"{ROOT}/beta/own", b"3")
        assert storage.read(f"{ROOT}/beta/own") == b"3"
    assert DeltaStore().read(uri, version.physical_version).equals(table(DAYS))
    assert storage.read(f"{uri}/more") == b"1"
    assert not storage.exists(f"{uri}/new")


def test_a_wrong_secret_is_refused_and_never_shown(object_store: ObjectStore, uri: str) -> None:
    access = object_store.access(secret_access_key="not-the-secret", patience_seconds=1.0)
    with installed(access), pytest.raises(StoreUnavailable) as caught:
        storage.read(f"{uri}/x")
    assert "not-the-secret" not in str(caught.value)
    assert "not-the-secret" not in repr(access)


@pytest.mark.parametrize(
    ("part", "path"),
    [
        ("filer", "/buckets/optaic/data/default/x"),
        ("master", "/dir/lookup?fileId=1,01&read=yes"),
        ("master", "/dir/assign"),
        ("master", "/col/delete?collection=optaic"),
        ("volume", "/1,01"),
    ],
)
async def test_the_inner_listeners_give_and_delete_nothing_over_http(
    object_store: ObjectStore, part: str, path: str
) -> None:
    host = f"{HOST}:{object_store.ports[f'seaweedfs_{part}']}"
    assert re.search(r": HTTP/1.1 40[14] ", await checks.find_http_problem(host, path))


@pytest.mark.parametrize("part", ["s3", "filer", "master", "volume"])
@pytest.mark.parametrize("by", ["port", "socket"])
async def test_the_inner_listeners_of_grpc_answer_to_the_server_s_own_parts_only(
    object_store: ObjectStore, part: str, by: str
) -> None:
    port = object_store.ports[f"seaweedfs_{part}_grpc"]
    ca, certificate, key = (
        (object_store.state / f"seaweedfs-{what}.pem").read_bytes() for what in ("ca", "certificate", "key")
    )
    attempts: dict[str, grpc.ChannelCredentials | None] = {
        "in plaintext": None,
        "without a certificate": grpc.ssl_channel_credentials(ca),
        "with a certificate": grpc.ssl_channel_credentials(ca, key, certificate),
    }
    # The server's own choice of a place for its sockets.
    address = f"{HOST}:{port}" if by == "port" else f"unix:/tmp/seaweedfs-{part}-grpc-{port}.sock"
    codes = {how: await _ask(address, credentials) for how, credentials in attempts.items()}
    assert codes["with a certificate"] is grpc.StatusCode.UNIMPLEMENTED, codes
    assert {codes["in plaintext"], codes["without a certificate"]} == {grpc.StatusCode.UNAVAILABLE}, codes


async def _ask(address: str, credentials: grpc.ChannelCredentials | None) -> grpc.StatusCode:
    """Return how a server ends a call of a method that it does not have."""
    options = (("grpc.ssl_target_name_override", "localhost"),) if credentials else ()
    opened = (
        grpc.aio.secure_channel(address, credentials, options)
        if credentials
        else grpc.aio.insecure_channel(address)
    )
    async with opened as channel:
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await channel.unary_unary("/nobody/Has")(b"", timeout=20)
    return caught.value.code()


def _publish_at_once(uri: str) -> list[bool]:
    """Have many writers publish one version, each its own; return what each of them believes."""
    count = 16
    start = threading.Barrier(count)

    def publish(number: int) -> bool:
        start.wait()
        return storage.publish(f"{uri}/manifest.json", str(number).encode())

    with ThreadPoolExecutor(count) as pool:
        return list(pool.map(publish, range(count)))


def test_of_writers_at_once_exactly_one_publishes(uri: str) -> None:
    won = _publish_at_once(uri)
    assert won.count(True) == 1
    assert storage.read(f"{uri}/manifest.json") == str(won.index(True)).encode()


def test_without_the_condition_all_writers_believe_that_theirs_is_published(
    uri: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def publish(place: str, content: bytes) -> bool:
        storage.replace(place, content)
        return True

    monkeypatch.setattr(storage, "publish", publish)
    assert all(_publish_at_once(uri))


def test_two_writers_of_one_content_leave_one_version_and_one_file(uri: str) -> None:
    start = threading.Barrier(2)

    def write(_: int) -> str:
        start.wait()
        return ParquetStore().write(table(DAYS), None, uri).physical_version

    with ThreadPoolExecutor(2) as pool:
        versions = set(pool.map(write, range(2)))
    (version,) = versions
    assert ParquetStore().read(uri, version).equals(table(DAYS))
    assert len([each for each in storage.list_files(uri) if each.path.endswith(".parquet")]) == 1


def test_of_two_writers_from_one_version_each_gets_its_own(uri: str) -> None:
    base = DeltaStore().write(table(DAYS[:2]), None, uri).physical_version
    start = threading.Barrier(2)

    def write(number: int) -> str:
        start.wait()
        try:
            return DeltaStore().write(table(DAYS, float(number)), base, uri).physical_version
        except WriteConflict:
            return ""

    with ThreadPoolExecutor(2) as pool:
        versions = list(pool.map(write, (1, 2)))
    assert len(set(versions)) == len(versions)
    for number, version in zip((1, 2), versions, strict=True):
        if version:
            assert DeltaStore().read(uri, version).equals(table(DAYS, float(number)))


def test_files_of_a_run_come_back(uri: str, tmp_path: Path) -> None:
    flow = FlowLocation(ROOT, "default", uri.split("/")[5], "training")
    assert storage.read(flow.write_output("r1", "traceback.txt", "Traceback\n")) == b"Traceback\n"
    (tmp_path / "deep").mkdir()
    (tmp_path / "deep" / "a").write_bytes(b"a" * 3_000_000)
    (tmp_path / "b").write_bytes(b"b")
    copy_folder(tmp_path, f"{flow.outputs_uri('r1')}model")
    uploads = list_files({"model": f"{flow.outputs_uri('r1')}model"}, 10)
    assert [(each.name, each.size) for each in uploads] == [("model/b", 1), ("model/deep/a", 3_000_000)]
    with uploads[1].open() as file:
        assert file.read() == b"a" * 3_000_000


def test_data_of_a_deleted_instance_is_removed(object_store: ObjectStore) -> None:
    instance_id = new_id()
    flow = FlowLocation(ROOT, "default", instance_id, "refresh")
    DeltaStore().write(table(DAYS), None, flow.data_uri)
    flow.write_output("r1", "traceback.txt", "x")
    other = FlowLocation(ROOT, "default", new_id(), "refresh").write_output("r1", "kept", "x")
    removal = Removal(ROOT, "default", instance_id, (), has_output=True, storage=object_store.access())
    for _ in range(2):  # a worker may repeat it
        check_place(removal)
        remove_by_stores(removal)
        remove_rest(removal)
    assert not storage.exists(f"{ROOT}/default/{instance_id}")
    assert storage.read(other) == b"x"
