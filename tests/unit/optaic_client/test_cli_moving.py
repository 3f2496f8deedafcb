"""`optaic admin move-data`: what is copied, held, compared and switched, and when it refuses."""

from __future__ import annotations

import asyncio
import itertools
import os
import shutil
import signal
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import grpc
import pytest

from optaic.cli import moving
from optaic.moving import Copier, open_folder
from servicekit.ids import new_id
from support.command_line import ID, invoke
from support.fake_services import FakeServices, refuse
from support.moving import CONTENT, PLACE, Move, MovingService
from support.polling import PATIENCE


@pytest.fixture
def service(optaic: FakeServices, tmp_path: Path) -> MovingService:
    return MovingService(optaic, tmp_path)


def _move(service: MovingService, *arguments: str, status: int = 0) -> str:
    result = invoke("admin", "move-data", "--to", str(service.target), *arguments, status=status)
    return str(result.output)


def test_data_is_copied_compared_and_switched_and_runs_stay_held(service: MovingService) -> None:
    text = _move(service, "--tenant", "default")
    assert service.copied() == CONTENT
    assert service.calls() == ["BeginDataMove", "SwitchDataMove"]
    assert "1 files are the same on both sides" in text
    service.forget()
    assert _move(service).endswith("--finish\n"), "called again, it says what is next"
    assert service.calls() == ["SwitchDataMove"], "all services are told again"


def test_what_is_next_concerns_this_tenant_only(service: MovingService) -> None:
    text = _move(service)
    assert f"workers of the tenant default with OPTAIC_DATA_ROOT={service.target}, no others" in text
    assert "gateway" in text
    assert "run-service with it only once every tenant has moved" in text


def test_finishing_needs_neither_place_and_removes_nothing(service: MovingService) -> None:
    _move(service)
    for place in (service.source, service.target / "default" / ID):
        shutil.rmtree(place)
    (service.target / "default/new").write_bytes(b"of a run with the new root")
    invoke("admin", "move-data", "--finish")
    assert (service.target / "default/new").exists()
    assert service.calls()[-1] == "EndDataMove"


def test_active_runs_are_waited_for_only_if_asked(service: MovingService) -> None:
    service.active = iter((2,))
    text = _move(service, status=1)
    assert "2 runs are active" in text
    assert "runs are held until" not in text
    assert service.calls() == ["BeginDataMove", "EndDataMove"]
    service.forget()
    service.active = iter((2, 1))
    _move(service, "--wait")
    assert service.calls() == ["BeginDataMove", "SwitchDataMove"]


def test_the_hold_of_another_call_is_not_ended(service: MovingService) -> None:
    service.move.state, service.move.from_root = Move.STATE_HELD, str(service.source)
    service.move.to_root = str(service.target)
    service.active = itertools.repeat(2)
    assert "pass --wait, or end the move with --give-up" in _move(service, status=1)
    assert service.calls() == ["BeginDataMove"]


# The first look is that of the command, the second and third are in the first pass and before runs are held, the fourth is before the
# last pass, the fifth and sixth before each of two removals there.
@pytest.mark.parametrize("look", range(2, 7))
@pytest.mark.parametrize(
    "change",
    [
        {"state": Move.STATE_SWITCHED, "data_root": "target"},
        {"state": Move.STATE_UNSPECIFIED, "from_root": "", "to_root": "", "data_root": "target"},
        {"state": Move.STATE_HELD, "from_root": "source", "to_root": "/elsewhere"},
        {"state": Move.STATE_HELD, "from_root": "source", "to_root": "target", "actor": "somebody else"},
    ],
    ids=["switched", "finished", "another", "begun again"],
)
def test_nothing_is_removed_or_switched_once_another_call_has_changed_the_move(
    service: MovingService, look: int, change: dict[str, Any]
) -> None:
    places = {"source": str(service.source), "target": str(service.target)}
    service.changes[look] = {
        name: places.get(value, value) if isinstance(value, str) else value for name, value in change.items()
    }
    new = [service.target / "default" / name for name in ("a", "b")]
    for place in new:
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_bytes(b"of a run with the new root")
    text = _move(service, "--wait", status=1)
    assert "another call has begun, switched or ended a move" in text
    assert "runs are held until" not in text
    assert [place.exists() for place in new] == [look < 6, True]
    assert service.calls() == (["BeginDataMove"] if look > 3 else [])


def test_a_move_that_another_call_switches_before_runs_are_held_is_not_gone_on_with(
    service: MovingService,
) -> None:
    service.on_begin = {"state": Move.STATE_SWITCHED}
    stray = service.target / "default/stray"
    stray.parent.mkdir(parents=True)
    stray.write_bytes(b"")
    assert "another call has switched this move" in _move(service, status=1)
    assert stray.exists()
    assert service.calls() == ["BeginDataMove"]


def test_another_move_is_refused_before_anything_is_copied(service: MovingService) -> None:
    service.move.from_root, service.move.to_root = str(service.source), "s3://bucket/p"
    for state, option in (Move.STATE_HELD, "--give-up"), (Move.STATE_SWITCHED, "--finish"):
        service.move.state = state
        assert f"end that move first, with {option}" in _move(service, status=1)
    service.move.state, service.move.to_root = Move.STATE_HELD, str(service.target)
    assert "end that move first" in _move(service, "--from", "/elsewhere", status=1)
    assert not service.target.exists()
    assert service.calls() == []
    _move(service, "--from", service.source.as_uri())
    assert service.calls() == ["BeginDataMove", "SwitchDataMove"], "another spelling is the same move"


def test_a_source_without_any_file_is_refused(service: MovingService) -> None:
    shutil.rmtree(service.source)
    assert "has no file; mount it" in _move(service, status=1)
    assert service.calls() == []


def test_a_place_that_is_the_source_under_another_name_is_refused(service: MovingService) -> None:
    service.target.symlink_to(service.source)
    assert "are one folder" in _move(service, status=2)
    service.target.unlink()
    service.target.symlink_to(service.source / "default" / ID)
    assert "are one folder" in _move(service, status=2)
    assert service.calls() == []
    assert [each.name for each in (service.source / "default" / ID).rglob("*.txt")] == ["a.txt"]


def test_a_completed_run_whose_outputs_were_not_copied_is_named(service: MovingService) -> None:
    service.run.artifacts.clear()
    service.run.output_version.uri = f"{service.source}/default/{ID}/refresh/data"
    text = _move(service, status=1)
    assert f"{service.run.output_version.uri} has no file, but the outputs of run {ID} lie there" in text
    assert "runs are held until the move ends: call it again, or end it with --give-up" in text
    assert "SwitchDataMove" not in service.calls()
    (service.source / "default" / ID / "refresh/data").mkdir()
    (service.source / "default" / ID / "refresh/data/part").write_bytes(b"")
    _move(service)
    assert service.calls()[-1] == "SwitchDataMove"


def test_the_data_of_a_deleted_instance_may_be_gone(service: MovingService, optaic: FakeServices) -> None:
    shutil.rmtree(service.source / "default" / ID)
    service.write(service.source / "default/x", b"")
    assert "is not there" in _move(service, status=1)
    optaic.on(
        "GetInstance",
        lambda _, context: refuse(context, grpc.StatusCode.NOT_FOUND, "INSTANCE_NOT_FOUND", "it is gone"),
    )
    _move(service)
    assert service.calls()[-1] == "SwitchDataMove"


def test_files_are_compared_in_whatever_spelling_the_source_is_given(service: MovingService) -> None:
    service.move.data_root = ""
    service.record(service.source.as_uri())
    service.write(service.source, b"something else")
    text = _move(service, "--from", str(service.source), status=1)
    assert f"but run {ID} wrote a file with" in text


def test_a_source_in_which_no_run_has_its_outputs_is_refused(service: MovingService) -> None:
    service.move.data_root = ""
    service.record("/elsewhere")
    assert "no completed run has outputs below" in _move(service, "--from", str(service.source), status=1)
    assert service.calls() == []


@pytest.mark.parametrize("is_known", [True, False], ids=["run-service has it", "only the runs have it"])
def test_nothing_is_copied_over_the_place_where_the_data_is(service: MovingService, is_known: bool) -> None:
    service.move.data_root = str(service.target) if is_known else ""
    service.record(str(service.target))
    service.write(service.target, CONTENT)
    service.write(service.source, b"what lay here before")
    text = _move(service, "--from", str(service.source), status=2 if is_known else 1)
    assert ("the tenant's data lies at" if is_known else "no completed run has outputs below") in text
    assert service.copied() == CONTENT
    assert service.calls() == []


def test_a_target_within_another_root_is_refused_before_anything_is_copied(service: MovingService) -> None:
    service.move.former_roots.append(str(service.target.parent / "former"))
    service.target = service.target.parent / "former" / "below"
    assert "lies within another root" in _move(service, status=2)
    assert not service.target.exists()
    assert service.calls() == []


def test_a_target_with_the_data_of_another_installation_is_refused(service: MovingService) -> None:
    other = service.target / "default" / new_id() / "refresh/data/part"
    other.parent.mkdir(parents=True)
    other.write_bytes(b"of another installation")
    assert f"such as {other.parts[-4]}" in _move(service, status=1)
    assert other.exists()
    assert service.calls() == []
    service.move.former_roots.append(str(service.target))
    _move(service)
    assert not other.exists(), "what a former root still has was the tenant's"


def test_runs_that_stay_held_after_a_failure_are_said(service: MovingService, optaic: FakeServices) -> None:
    optaic.on(
        "SwitchDataMove",
        lambda _, context: refuse(
            context, grpc.StatusCode.FAILED_PRECONDITION, "RUNS_ACTIVE", "a run is active"
        ),
    )
    result = invoke("admin", "move-data", "--to", str(service.target), status=1)
    assert "runs are held until the move ends" in result.output


def test_an_interrupted_copy_ends_at_once_and_says_that_runs_are_held(service: MovingService) -> None:
    stray = service.target / "default/stray"
    stray.parent.mkdir(parents=True)
    stray.write_bytes(b"")
    is_copying, goes_on = threading.Event(), threading.Event()

    def block(look: int) -> None:
        if look == 5:  # before the removal in the last pass
            is_copying.set()
            goes_on.wait(PATIENCE)

    service.on_look = block
    command = [sys.executable, "-m", "optaic.cli", "admin", "move-data", "--to", str(service.target)]
    with subprocess.Popen(command, env=dict(os.environ), stderr=subprocess.PIPE, text=True) as process:
        assert is_copying.wait(PATIENCE)
        process.send_signal(signal.SIGINT)
        _, said = process.communicate(timeout=PATIENCE)
        goes_on.set()
    assert process.returncode == 130, said
    assert "runs are held until the move ends" in said
    assert "Traceback" not in said
    assert stray.exists()


def test_a_file_that_is_not_the_one_of_its_run_is_named_and_left_only_if_asked(
    service: MovingService,
) -> None:
    service.write(service.source, b"something else")
    text = _move(service, status=1)
    assert PLACE in text
    assert f"but run {ID} wrote a file with" in text
    assert "SwitchDataMove" not in service.calls()
    _move(service, "--leave-damaged")
    assert service.calls()[-1] == "SwitchDataMove"


def test_a_link_is_named(service: MovingService) -> None:
    (service.source / "default/link").symlink_to("/etc/passwd")
    assert "link: it is a link" in _move(service, status=1)
    assert not (service.target / "default/link").exists()


def test_a_move_is_not_ended_at_the_wrong_moment(service: MovingService) -> None:
    invoke("admin", "move-data", "--finish", status=1)
    service.move.state = Move.STATE_HELD
    assert "has not switched" in invoke("admin", "move-data", "--finish", status=1).output
    invoke("admin", "move-data", "--give-up")
    service.move.state = Move.STATE_SWITCHED
    assert "has switched" in invoke("admin", "move-data", "--give-up", status=1).output
    assert service.calls().count("EndDataMove") == 1


def test_the_source_is_removed_after_the_move_only(service: MovingService) -> None:
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


def test_a_source_that_is_where_the_data_is_under_another_name_is_kept(service: MovingService) -> None:
    former = service.source.with_name("former")
    former.symlink_to(service.source)
    service.move.former_roots.append(str(former))
    text = invoke("admin", "move-data", "--delete-source", str(former), "--yes", status=2).output
    assert "are one folder" in text
    assert (service.source / "default" / PLACE).exists()


def test_a_source_that_was_moved_back_to_before_the_answer_is_kept(
    service: MovingService, monkeypatch: pytest.MonkeyPatch
) -> None:
    def answer(_question: str) -> None:
        del service.move.former_roots[:]
        service.move.former_roots.append(str(service.target))
        service.move.data_root = str(service.source)

    service.move.former_roots.append(str(service.source))
    service.move.data_root = str(service.target)
    monkeypatch.setattr(moving, "confirm", answer)
    invoke("admin", "move-data", "--delete-source", str(service.source), status=2)
    assert (service.source / "default" / PLACE).exists()


def test_the_place_where_the_data_is_is_no_source_in_any_spelling(service: MovingService) -> None:
    service.move.former_roots.append(service.source.as_uri())
    invoke("admin", "move-data", "--delete-source", service.source.as_uri(), "--yes", status=2)
    assert (service.source / "default" / PLACE).exists()


async def test_a_copy_whose_command_is_cancelled_ends_before_the_next_file(service: MovingService) -> None:
    loop, is_copying, goes_on = asyncio.get_running_loop(), asyncio.Event(), threading.Event()

    def block() -> None:
        loop.call_soon_threadsafe(is_copying.set)
        goes_on.wait(PATIENCE)

    source, target = (open_folder(f"{each}/default") for each in (service.source, service.target))
    task = asyncio.create_task(moving._copy(Copier(source, target, block), is_last=False))
    await is_copying.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    goes_on.set()
    await loop.shutdown_default_executor()
    assert not service.target.exists()


@pytest.mark.parametrize(
    "arguments",
    [[], ["--finish", "--give-up"], ["--to", "/x", "--finish"], ["--to", "/x", "--tenant", "beta"]],
)
def test_a_call_names_one_step_and_the_caller_s_tenant(service: MovingService, arguments: list[str]) -> None:
    invoke("admin", "move-data", *arguments, status=2)
    assert "BeginDataMove" not in service.calls()


def test_without_a_data_root_the_source_is_asked_for(service: MovingService) -> None:
    service.move.data_root = ""
    assert "pass --from" in _move(service, status=2)
    _move(service, "--from", str(service.source))
    assert service.copied() == CONTENT
