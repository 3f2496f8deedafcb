"""Tables that are made to harm, read by the gateway: none leads to other files, and none costs the gateway its memory."""

from __future__ import annotations

import itertools
import json
import os
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa  # type: ignore[import-untyped] # it ships no type information
import pytest
from pyarrow import parquet as pq

from gateway.artifacts import find_data
from gateway.reading import read_table
from optaic.common.v1 import flow_pb2
from optaic.run.v1 import run_pb2
from optaic.tables.problems import TableError
from optaic.tables.sources import open_file
from servicekit.errors import DomainError
from support.tables import page, places, prices
from worker.builtin.delta_store import DeltaStore
from worker.builtin.parquet_store import ParquetStore

INSTANCE = "00000000-0000-7000-8000-0000000000aa"
OTHER = "00000000-0000-7000-8000-0000000000bb"
RUN = "00000000-0000-7000-8000-000000000001"
ROOT = "/data"
FOLDER = f"{ROOT}/acme/{INSTANCE}/refresh/data"
_STEPS = ("..", ".", "", "%2e%2e", "..%2f", "..\\", "\0", "?", "#", "%252e", "..//..", "a/../..")
_ENDS = ("etc/passwd", "a", f"{OTHER}/data", "acme", "../a")
TRAVERSALS = sorted(
    {
        *(f"{FOLDER}/{step}/{end}" for step, end in itertools.product(_STEPS, _ENDS)),
        *(f"{FOLDER}/{step}/{step}/{step}/{end}" for step, end in itertools.product(_STEPS, _ENDS)),
        *(f"{ROOT}/{step}/acme/{INSTANCE}/refresh/data/{end}" for step, end in itertools.product(_STEPS, _ENDS)),
        *(f"{ROOT}/acme/{step}{INSTANCE}/refresh/data/{end}" for step, end in itertools.product(_STEPS[3:], _ENDS)),
        f"{ROOT}/acme/{OTHER}/refresh/data",
        f"{ROOT}/acme/{INSTANCE}/training/data",
        f"{ROOT}/acme/{INSTANCE}/refresh/runs/{OTHER}/a",
        f"{ROOT}/acme/{INSTANCE}/refresh/database",
        f"{ROOT}/acme/{INSTANCE}/refresh",
        f"{ROOT}/acme/beta/{INSTANCE}/refresh/data",
        f"{ROOT}/ACME/{INSTANCE}/refresh/data",
        f"/other/acme/{INSTANCE}/refresh/data",
        f"s3://data/acme/{INSTANCE}/refresh/data",
        f"https://evil.example/acme/{INSTANCE}/refresh/data",
        f"zip::{FOLDER}",
        f"{FOLDER}::zip",
        "/etc/passwd",
        "file:///etc",
        "",
    }
)  # fmt: skip


def run_at(uri: str) -> run_pb2.Run:
    run = run_pb2.Run(run_id=RUN, instance_id=INSTANCE, flow_kind=flow_pb2.FLOW_KIND_REFRESH)
    run.output_version.uri = uri
    return run


def test_the_data_of_a_flow_and_no_other_place_is_read() -> None:
    for uri in (FOLDER, f"{FOLDER}/", f"{FOLDER}/part", f"{ROOT}/acme/{INSTANCE}/refresh/runs/{RUN}/a"):
        assert find_data(run_at(uri)) == (uri.rstrip("/"), ROOT)
    assert len(TRAVERSALS) >= 200
    for uri in TRAVERSALS:
        found = find_data(run_at(uri))
        assert found is None or found[1] != ROOT, uri


def job(root: Path, uri: str, store: str, version: str, **fields: Any) -> dict[str, Any]:
    """Return a job of the reader."""
    return {
        "root": str(root),
        "uri": uri,
        "store": store,
        "version": version,
        "timezone": "",
        "size": Path(uri).stat().st_size if store == "file" else 0,
        "columns": None,
        "entities": None,
        "start": "",
        "end": "",
        "page_size": 1_000,
        "position": [0, 0, 0],
        "media_type": "application/json",
        "is_statistics": False,
        "most_bytes": 8 * 1024 * 1024,
        "most_rows": 10**9,
        "memory_bytes": 2 * 1024**3,
        "seconds": 60,
        "scan_seconds": 40,
        "access": None,
        **fields,
    }


async def outcome(given: dict[str, Any]) -> str:
    """Return the reason for which a read is refused; empty if it is not."""
    refused = None
    try:
        answer = await read_table(given, 120, 8 * 1024 * 1024)
    except DomainError as error:
        refused = error
    if refused is None:
        assert b"SECRET" not in answer.content
        return ""
    assert given["root"] not in refused.message
    return refused.reason


def make_delta(root: Path) -> tuple[Path, str]:
    folder = root / "acme" / "i" / "refresh" / "data"
    return folder, DeltaStore().write(prices(5), None, str(folder)).physical_version


def edit_log(folder: Path, change: Callable[[dict[str, Any]], None]) -> None:
    """Change each action of the first commit."""
    log = folder / "_delta_log" / f"{0:020}.json"
    actions = [json.loads(line) for line in log.read_text("utf-8").splitlines()]
    for action in actions:
        change(action)
    log.write_text("\n".join(json.dumps(action) for action in actions), "utf-8")


@pytest.mark.parametrize(
    "path",
    [
        "../../../secret.parquet",
        "..%2f..%2f..%2fsecret.parquet",
        "%2e%2e/%2e%2e/%2e%2e/secret.parquet",
        "a/../../../../secret.parquet",
        "//secret.parquet",
        "{root}/secret.parquet",
        "file://{root}/secret.parquet",
        "s3://bucket/secret.parquet",
        "..\\secret.parquet",
        "link.parquet",
        "link/secret.parquet",
        "pipe.parquet",
    ],
)
async def test_a_delta_log_leads_to_no_file_outside_of_its_table(tmp_path: Path, path: str) -> None:
    folder, version = make_delta(tmp_path)
    prices(1, ["SECRET"]).write_parquet(tmp_path / "secret.parquet")
    (folder / "link.parquet").symlink_to(tmp_path / "secret.parquet")
    (folder / "link").symlink_to(tmp_path)
    os.mkfifo(folder / "pipe.parquet")

    def lead_elsewhere(action: dict[str, Any]) -> None:
        if "add" in action:
            action["add"]["path"] = path.format(root=tmp_path)

    assert await outcome(job(tmp_path, str(folder), "delta", version)) == ""
    edit_log(folder, lead_elsewhere)
    assert await outcome(job(tmp_path, str(folder), "delta", version)) == "DATA_NOT_READABLE"


async def test_a_log_or_a_manifest_that_is_a_link_is_not_read(tmp_path: Path) -> None:
    folder, version = make_delta(tmp_path)
    (folder / "_delta_log").rename(tmp_path / "elsewhere")
    (folder / "_delta_log").symlink_to(tmp_path / "elsewhere")
    assert await outcome(job(tmp_path, str(folder), "delta", version)) == "DATA_NOT_READABLE"
    place = tmp_path / "acme" / "p"
    stored = ParquetStore().write(prices(5), None, str(place)).physical_version
    assert await outcome(job(tmp_path, str(place), "parquet", stored)) == ""
    manifest = place / stored / "manifest.json"
    content = json.loads(manifest.read_text("utf-8"))
    prices(5, ["SECRET", "S"]).write_parquet(tmp_path / "acme" / "secret.parquet")
    for name in ("../../secret.parquet", str(tmp_path / "acme" / "secret.parquet"), "..", ""):
        manifest.write_text(json.dumps({**content, "file": name}), "utf-8")
        assert await outcome(job(tmp_path, str(place), "parquet", stored)) == "DATA_NOT_READABLE"
    manifest.rename(tmp_path / "manifest.json")
    manifest.symlink_to(tmp_path / "manifest.json")
    assert await outcome(job(tmp_path, str(place), "parquet", stored)) == "DATA_NOT_READABLE"
    for version in ("..", "../p", "a" * 64, "*"):
        assert await outcome(job(tmp_path, str(place), "parquet", version)) == "VERSION_NOT_FOUND"


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"protocol": {"minReaderVersion": 2}}, "STORE_NOT_READ_HERE"),
        ({"protocol": {"minReaderVersion": 3, "readerFeatures": ["deletionVectors"]}}, "STORE_NOT_READ_HERE"),
        ({"add": {"deletionVector": {"storageType": "u"}}}, "STORE_NOT_READ_HERE"),
        ({"metaData": {"partitionColumns": ["entity"]}}, "STORE_NOT_READ_HERE"),
        ({"metaData": {"schemaString": "{}"}}, "DATA_NOT_READABLE"),
        ({"add": {"stats": "no JSON"}}, "DATA_NOT_READABLE"),
    ],
)
async def test_a_table_that_is_kept_in_another_way_is_not_read_as_if_it_were_not(
    tmp_path: Path, change: dict[str, dict[str, Any]], expected: str
) -> None:
    folder, version = make_delta(tmp_path)

    def alter(action: dict[str, Any]) -> None:
        for kind, fields in change.items():
            if kind in action:
                action[kind].update(fields)

    edit_log(folder, alter)
    assert await outcome(job(tmp_path, str(folder), "delta", version)) == expected


async def test_a_file_that_unpacks_to_more_than_memory_ends_its_own_process_only(tmp_path: Path) -> None:
    """One text of 64 MB, in each of 2,000 rows, takes no more than 64 MB in the file: its dictionary has it once."""
    text = pa.DictionaryArray.from_arrays(pa.array([0] * 2_000, pa.int32()), pa.array(["x" * (64 << 20)]))
    place = tmp_path / "acme" / "bomb.parquet"
    place.parent.mkdir()
    pq.write_table(pa.table({"v": text}), place, compression="zstd")
    assert place.stat().st_size < 1 << 20
    reason = await outcome(job(tmp_path, str(place), "file", "", memory_bytes=1 << 30))
    assert reason in {"READ_TOO_LARGE", "DATA_NOT_READABLE"}


async def test_a_table_of_many_row_groups_needs_no_more_memory_than_one_of_few(tmp_path: Path) -> None:
    """Unpacked, the table has 1.2 GB; the process that scans it may have half as much address space more than an idle one."""
    place = tmp_path / "acme" / "large.parquet"
    place.parent.mkdir()
    group = pa.table({f"c{number}": pa.array([0.5]).take(pa.array([0] * 500_000)) for number in range(10)})
    group = group.append_column("entity", pa.array(["B"]).take(pa.array([0] * 500_000)))
    with pq.ParquetWriter(place, group.schema, write_statistics=False) as writer:
        for _ in range(30):
            writer.write_table(group, row_group_size=500_000)
    given = job(tmp_path, str(place), "file", "", entities=["A"], memory_bytes=1 << 30, scan_seconds=100)
    answer = await read_table({**given, "seconds": 110}, 120, 8 * 1024 * 1024)
    assert (answer.content, answer.header["following"]) == (b"[]", None)


async def test_an_answer_that_is_too_large_is_refused_as_such(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("gateway.reading._MOST_HEADER_BYTES", 0)
    folder, version = make_delta(tmp_path)
    with pytest.raises(DomainError) as refused:
        await read_table(job(tmp_path, str(folder), "delta", version), 120, 10)
    assert refused.value.reason == "READ_TOO_LARGE"


@pytest.mark.parametrize("name", ["a.parquet", "a.csv", "a.json", "a.arrow"])
async def test_broken_files_are_refused(tmp_path: Path, name: str) -> None:
    place = tmp_path / "acme" / name
    place.parent.mkdir()
    start = {"a.parquet": b"PAR1", "a.arrow": b"ARROW1\0\0"}.get(name, b"")
    for content in (b"", os.urandom(2_000), b"\xff" * 100, b"[" * 100_000):
        place.write_bytes(start + content)
        reason = await outcome(job(tmp_path, str(place), "file", ""))
        # A length that is made up may ask for more memory than there is.
        refusals = {"DATA_NOT_READABLE", "NOT_A_TABLE", "READ_TOO_LARGE"}
        assert reason in refusals or name == "a.csv"


_END = struct.pack("<i", 50_001)
_BEYOND = {
    "text": (
        pa.StringArray.from_buffers(1, pa.py_buffer(b"\0" * 4 + _END), pa.py_buffer(b"x" * 50_001)),
        struct.pack("<i", 3_000_000),
    ),
    "list": (
        pa.ListArray.from_arrays(pa.array([0, 50_001], pa.int32()), pa.array([7] * 50_001, pa.int8())),
        struct.pack("<i", 3_000_000),
    ),
    "index": (
        pa.DictionaryArray.from_arrays(pa.array([50_001], pa.int32()), pa.array([7] * 50_002, pa.int8())),
        struct.pack("<i", 3_000_000),
    ),
    "negative": (
        pa.DictionaryArray.from_arrays(pa.array([50_001], pa.int32()), pa.array([7] * 50_002, pa.int8())),
        struct.pack("<i", -3_000_000),
    ),
    "bytes": (pa.array(["abcd"]), b""),
}


@pytest.mark.parametrize("name", ["*", "^v.*$", "\0row", "\0file"])
def test_a_column_whose_name_means_others_is_refused(tmp_path: Path, name: str) -> None:
    place = tmp_path / "acme" / "a.json"
    place.parent.mkdir()
    place.write_text(json.dumps([{"v": 1, name: 70}, {"v": 2, name: 80}]), "utf-8")
    with places(tmp_path) as opened, pytest.raises(TableError, match="has a column named"):
        page(open_file(opened, str(place)))


@pytest.mark.parametrize("kind", _BEYOND)
def test_an_arrow_file_shows_nothing_of_the_memory_of_its_reader(tmp_path: Path, kind: str) -> None:
    """The secrets of the object store are in that memory."""
    values, beyond = _BEYOND[kind]
    place = tmp_path / "acme" / "a.arrow"
    place.parent.mkdir()
    with pa.ipc.new_file(place, pa.schema([("v", values.type)])) as writer:
        writer.write_batch(pa.record_batch([values], ["v"]))
    content = place.read_bytes()
    change = (b"abcd", b"\xff\xfeab") if kind == "bytes" else (_END, beyond)
    at = content.rindex(change[0])
    place.write_bytes(content[:at] + change[1] + content[at + 4 :])
    with places(tmp_path) as opened, pytest.raises(ValueError, match=r"."):
        page(open_file(opened, str(place)))
