"""The worker records each file that a run has written; what is no plain file fails the run."""

import hashlib
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from optaic.common.v1 import flow_pb2
from optaic.plugins import PluginError
from optaic.rules.artifacts import measure
from optaic.rules.locations import local_path
from optaic.run.v1 import run_pb2
from support.worker import World
from worker import manifest, trained
from worker.execution import Outcome
from worker.manifest import describe_text, list_artifacts
from worker.recipe import FileHash, TrainedFiles
from worker.written_files import list_files

REFRESH, TRAINING = flow_pb2.FLOW_KIND_REFRESH, flow_pb2.FLOW_KIND_TRAINING


@pytest.fixture(params=["path", "uri"])
def outputs(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """The folder of a run, as a path or as a URI."""
    folder = tmp_path / "runs" / "r"
    folder.mkdir(parents=True)
    return f"{folder}/" if request.param == "path" else f"{folder.as_uri()}/"


def _folder(outputs: str) -> Path:
    return Path(local_path(outputs))


def test_each_file_has_its_size_and_hash(outputs: str) -> None:
    folder = _folder(outputs)
    (folder / "model" / "deep").mkdir(parents=True)
    (folder / "a.parquet").write_bytes(b"abc")
    (folder / "model" / "MLmodel").write_bytes(b"")
    (folder / "model" / "deep" / "x.json").write_bytes(b"{}")
    artifacts = {"a": f"{outputs}a.parquet", "model": f"{outputs}model", "data": "/elsewhere/data"}
    found = {entry.name: entry for entry in list_artifacts(artifacts, outputs)}
    assert found.keys() == {"a", "model/MLmodel", "model/deep/x.json"}
    assert found["a"] == run_pb2.Artifact(
        name="a",
        uri=f"{outputs}a.parquet",
        size_bytes=3,
        sha256=hashlib.sha256(b"abc").hexdigest(),
        media_type="application/vnd.apache.parquet",
    )
    assert found["model/deep/x.json"].uri == f"{outputs}model/deep/x.json"
    assert found["model/MLmodel"].size_bytes == 0


def _link(folder: Path, secret: Path) -> None:
    (folder / "a").symlink_to(secret)


def _link_hard(folder: Path, secret: Path) -> None:
    os.link(secret, folder / "a")


def _link_folder(folder: Path, secret: Path) -> None:
    (folder / "a").symlink_to(secret.parent)


def _make_pipe(folder: Path, _: Path) -> None:
    os.mkfifo(folder / "a")


def _make_empty_folder(folder: Path, _: Path) -> None:
    (folder / "a").mkdir()


def _make_nothing(_folder: Path, _: Path) -> None:
    pass


@pytest.mark.parametrize(
    "leave", [_link, _link_hard, _link_folder, _make_pipe, _make_empty_folder, _make_nothing]
)
def test_what_is_no_plain_file_is_refused(
    tmp_path: Path, outputs: str, leave: Callable[[Path, Path], None]
) -> None:
    secret = tmp_path / "secrets" / "a"
    secret.parent.mkdir()
    secret.write_text("secret")
    leave(_folder(outputs), secret)
    with pytest.raises(PluginError) as refused:
        list_artifacts({"a": f"{outputs}a"}, outputs)
    assert refused.value.type == "ArtifactMissing"


def test_a_folder_on_the_way_may_not_be_a_link(tmp_path: Path, outputs: str) -> None:
    (tmp_path / "secrets").mkdir()
    (tmp_path / "secrets" / "a").write_text("secret")
    (_folder(outputs) / "below").symlink_to(tmp_path / "secrets")
    with pytest.raises(PluginError, match="below a link"):
        list_artifacts({"a": f"{outputs}below/a"}, outputs)


def test_too_many_files_are_refused(outputs: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(manifest, "MOST_FILES", 2)
    for name in "abc":
        (_folder(outputs) / name).write_text(name)
    listed = {name: f"{outputs}{name}" for name in "abc"}
    with pytest.raises(PluginError) as refused:
        list_artifacts(listed, outputs)
    assert refused.value.type == "ArtifactsTooLarge"
    assert len(list_artifacts({name: listed[name] for name in "ab"}, outputs)) == 2


def test_a_folder_is_listed_as_far_as_needed(outputs: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(manifest, "MOST_FILES", 2)
    (_folder(outputs) / "model").mkdir()
    for number in range(9):
        (_folder(outputs) / "model" / str(number)).write_text("x")
    assert len(list_files({"model": f"{outputs}model"}, 2, outputs)) == 3
    with pytest.raises(PluginError, match="more than 2 files"):
        list_artifacts({"model": f"{outputs}model"}, outputs)


def test_a_file_that_only_seems_large_is_not_read(outputs: str) -> None:
    with (_folder(outputs) / "a").open("wb") as file:
        file.truncate(2**40)
    with pytest.raises(PluginError) as refused:
        list_artifacts({"a": f"{outputs}a"}, outputs)
    assert refused.value.type == "ArtifactsTooLarge"


@pytest.mark.parametrize(
    "place", ["..", "../..", "../../secrets", "a/../../..", ".", "", "/", "a//b", "../r2/a"]
)
def test_a_place_that_leads_out_is_not_even_listed(
    outputs: str, place: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(manifest, "list_files", lambda *_: pytest.fail("it lists"))
    with pytest.raises(PluginError, match="names no file in the run's folder") as refused:
        list_artifacts({"a": f"{outputs}{place}"}, outputs)
    assert refused.value.type == "ArtifactMissing"


def test_a_text_of_the_worker_is_described(outputs: str) -> None:
    path = _folder(outputs) / "traceback.txt"
    path.write_bytes("a\udc80é".encode(errors="replace"))
    (listed,) = list_artifacts({"traceback": f"{outputs}traceback.txt"}, outputs)
    assert describe_text("traceback", f"{outputs}traceback.txt", "a\udc80é") == listed


async def test_a_run_reports_its_manifest(world: World, tmp_path: Path) -> None:
    prices = world.runs.submit(world.dataset(), REFRESH)
    assert (await world.execute(prices, tmp_path)).outcome is Outcome.COMPLETED, prices.error
    assert list(prices.artifact_manifest) == []  # the data of a dataset has its digest
    run = world.runs.submit(world.model(), TRAINING, {"features": prices})
    assert (await world.execute(run, tmp_path)).outcome is Outcome.COMPLETED, run.error
    for name, uri in run.artifacts.items():
        entries = [entry for entry in run.artifact_manifest if entry.name.partition("/")[0] == name]
        assert entries, name
        for entry in entries:
            with Path(local_path(entry.uri)).open("rb") as file:  # noqa: ASYNC230 - a small file of a test
                assert (entry.size_bytes, entry.sha256) == measure(file)
            assert entry.uri.startswith(uri)


def test_a_file_of_a_training_that_was_changed_is_not_used(tmp_path: Path) -> None:
    (tmp_path / trained.FACTS).write_text('{"train_end": "2024-01-02"}')
    uri = f"{tmp_path}/"
    content = (tmp_path / trained.FACTS).read_bytes()
    right = FileHash(len(content), hashlib.sha256(content).hexdigest())
    assert trained.read_facts(TrainedFiles(uri))["train_end"] == "2024-01-02"
    assert trained.read_facts(TrainedFiles(uri, {trained.FACTS: right}))["train_end"] == "2024-01-02"
    for wrong in (FileHash(right.size, "0" * 64), FileHash(right.size + 1, right.sha256)):
        with pytest.raises(PluginError, match="is not the one that the training wrote") as refused:
            trained.read_facts(TrainedFiles(uri, {trained.FACTS: wrong}))
        assert refused.value.type == "ArtifactCorrupt"
