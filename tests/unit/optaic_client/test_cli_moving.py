"""`optaic admin move-data`: what is copied, held, compared and switched, and when it refuses."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from optaic.run.v1 import data_move_service_pb2 as api
from optaic.run.v1 import run_pb2, run_service_pb2
from support.command_line import ID, invoke
from support.fake_services import FakeServices

CONTENT = b"what the run wrote"
PLACE = f"{ID}/refresh/runs/r/a.txt"
Move = api.DataMove


class Service:
    """run-service, as far as moves go."""

    def __init__(self, optaic: FakeServices, folder: Path) -> None:
        self.source, self.target = folder / "source", folder / "target"
        self.move = Move(tenant_id="default", data_root=str(self.source))
        self.active: Iterator[int] = iter(())  # runs, each time when somebody asks
        self.run = run_pb2.Run(run_id=ID, status=run_pb2.RUN_STATUS_COMPLETED, artifacts={"a": "u"})
        entry = self.run.artifact_manifest.add(name="a", size_bytes=len(CONTENT))
        entry.uri, entry.sha256 = f"{self.source}/default/{PLACE}", hashlib.sha256(CONTENT).hexdigest()
        self.write(self.source, CONTENT)
        self._optaic = optaic
        optaic.on("GetDataMove", lambda *_: self._answer())
        optaic.on("BeginDataMove", self._begin)
        optaic.on("SwitchDataMove", lambda *_: self._answer(state=Move.STATE_SWITCHED))
        optaic.on(
            "EndDataMove", lambda *_: self._answer(state=Move.STATE_UNSPECIFIED, from_root="", to_root="")
        )
        listed = run_pb2.Run()
        listed.CopyFrom(self.run)
        listed.ClearField("artifact_manifest")
        optaic.on("ListRuns", run_service_pb2.ListRunsResponse(runs=[listed]))
        optaic.on("GetRun", self.run)

    def write(self, root: Path, content: bytes) -> None:
        place = root / "default" / PLACE
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_bytes(content)

    def copied(self) -> bytes:
        return (self.target / "default" / PLACE).read_bytes()

    def calls(self) -> list[str]:
        return [each.method for each in self._optaic.seen if each.method.endswith("DataMove")]

    def _begin(self, request: Any, _context: object) -> Move:
        return self._answer(state=Move.STATE_HELD, from_root=request.from_root, to_root=request.to_root)

    def _answer(self, **changes: Any) -> Move:
        for name, value in changes.items():
            setattr(self.move, name, value)
        self.move.active_run_count = next(self.active, 0)
        return self.move


@pytest.fixture
def service(optaic: FakeServices, tmp_path: Path) -> Service:
    return Service(optaic, tmp_path)


def _move(service: Service, *arguments: str, status: int = 0) -> str:
    result = invoke("admin", "move-data", "--to", str(service.target), *arguments, status=status)
    return str(result.output)


def test_data_is_copied_compared_and_switched_and_runs_stay_held(service: Service) -> None:
    text = _move(service, "--tenant", "default")
    assert service.copied() == CONTENT
    assert service.calls() == ["GetDataMove", "BeginDataMove", "SwitchDataMove"]
    assert "1 files are the same on both sides" in text
    assert f"OPTAIC_DATA_ROOT={service.target}" in text
    assert _move(service).endswith("--finish\n"), "called again, it says what is next"
    assert service.calls()[3:] == ["GetDataMove", "SwitchDataMove"], "all services are told again"


def test_finishing_removes_what_a_worker_has_removed_since(service: Service) -> None:
    _move(service)
    service.write(service.source / "default" / "kept", b"")
    (service.target / "default/gone").write_bytes(b"")
    invoke("admin", "move-data", "--finish")
    assert not (service.target / "default/gone").exists()
    assert service.copied() == CONTENT
    assert service.calls()[-1] == "EndDataMove"


def test_active_runs_are_waited_for_only_if_asked(service: Service) -> None:
    service.active = iter((0, 2))
    assert "2 runs are active" in _move(service, status=1)
    assert service.calls() == ["GetDataMove", "BeginDataMove", "EndDataMove"]
    service.active = iter((0, 2, 1))
    _move(service, "--wait")
    assert service.calls()[3:] == ["GetDataMove", "BeginDataMove", *["GetDataMove"] * 2, "SwitchDataMove"]


def test_a_file_that_is_not_the_one_of_its_run_is_named_and_left_only_if_asked(service: Service) -> None:
    service.write(service.source, b"something else")
    text = _move(service, status=1)
    assert PLACE in text
    assert f"but run {ID} wrote a file with" in text
    assert "SwitchDataMove" not in service.calls()
    _move(service, "--leave-damaged")
    assert service.calls()[-1] == "SwitchDataMove"


def test_a_link_is_named(service: Service) -> None:
    (service.source / "default/link").symlink_to("/etc/passwd")
    assert "link: it is a link" in _move(service, status=1)
    assert not (service.target / "default/link").exists()


def test_a_move_is_not_ended_at_the_wrong_moment(service: Service) -> None:
    invoke("admin", "move-data", "--finish", status=1)
    service.move.state = Move.STATE_HELD
    assert "has not switched" in invoke("admin", "move-data", "--finish", status=1).output
    invoke("admin", "move-data", "--give-up")
    service.move.state = Move.STATE_SWITCHED
    assert "has switched" in invoke("admin", "move-data", "--give-up", status=1).output
    assert service.calls().count("EndDataMove") == 1


def test_the_source_is_removed_after_the_move_only(service: Service) -> None:
    source = str(service.source)
    delete = ("admin", "move-data", "--delete-source", source, "--yes")
    assert "no former data root" in invoke(*delete, status=2).output
    service.move.former_roots.append(source)
    service.move.data_root = str(service.target)
    service.move.state = Move.STATE_SWITCHED
    assert "finish it first" in invoke(*delete, status=1).output
    assert (service.source / "default").exists()
    service.move.state = Move.STATE_UNSPECIFIED
    (service.source / "beta").mkdir()
    invoke(*delete)
    assert [each.name for each in service.source.iterdir()] == ["beta"]


def test_the_place_where_the_data_is_is_no_source_in_any_spelling(service: Service) -> None:
    service.move.former_roots.append(service.source.as_uri())
    invoke("admin", "move-data", "--delete-source", service.source.as_uri(), "--yes", status=2)
    assert (service.source / "default" / PLACE).exists()


@pytest.mark.parametrize(
    "arguments",
    [[], ["--finish", "--give-up"], ["--to", "/x", "--finish"], ["--to", "/x", "--tenant", "beta"]],
)
def test_a_call_names_one_step_and_the_caller_s_tenant(service: Service, arguments: list[str]) -> None:
    invoke("admin", "move-data", *arguments, status=2)
    assert "BeginDataMove" not in service.calls()


def test_without_a_data_root_the_source_is_asked_for(service: Service) -> None:
    service.move.data_root = ""
    assert "pass --from" in _move(service, status=2)
    _move(service, "--from", str(service.source))
    assert service.copied() == CONTENT
