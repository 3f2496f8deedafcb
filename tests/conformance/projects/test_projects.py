"""What every implementation of the port `Projects` does, the workspace's files and the fake alike."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import json
import os
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from instance_service.evidently_adapter import EvidentlyProjects
from instance_service.ports import MonitoringProject, OutsideUnavailableError, Projects
from optaic.rules.counterparts import counterpart_name
from servicekit.ids import new_id
from support.counterparts import FakeProjects
from support.polling import eventually

# What the real library sees in a workspace, and that it can use a project of ours as one of its own.
_OPEN = """
import json, sys
from evidently.ui.workspace import Workspace
workspace = Workspace.create(sys.argv[1])
projects = [project for project in workspace.list_projects()]
for project in projects:
    project.description = project.description + "!"
    project.save()
print(json.dumps({str(one.id): [one.name, workspace.get_project(one.id).description] for one in projects}))
workspace.delete_project(sys.argv[2])
"""


@pytest.fixture(params=["fake", "evidently"])
def projects(request: pytest.FixtureRequest, tmp_path: Path) -> Projects:
    """The port, by each of its implementations."""
    return FakeProjects() if request.param == "fake" else EvidentlyProjects(tmp_path, 10)


INSTALLATION = new_id()


def _project(title: str = "alpha", installation_id: str = INSTALLATION) -> MonitoringProject:
    return MonitoringProject(counterpart_name("default", new_id()), title, installation_id)


async def _all(projects: Projects, installation_id: str = INSTALLATION) -> dict[str, MonitoringProject]:
    return {found.name: found async for page in projects.pages(installation_id) for found in page}


async def test_an_ensured_object_is_found_as_desired(projects: Projects) -> None:
    await projects.ping()
    desired = [_project(), _project(), _project("Börse \u20ac")]
    ensured = await projects.ensure(desired)
    assert ensured.ids == {one.name: one.name.rpartition(".")[2] for one in desired}
    assert await _all(projects) == {one.name: one for one in desired}
    assert await projects.ensure(desired) == ensured
    renamed = replace(desired[0], title="beta")
    await projects.ensure([renamed])
    assert (await _all(projects))[renamed.name] == renamed


async def test_deleting_is_repeatable(projects: Projects) -> None:
    desired = _project()
    await projects.ensure([desired])
    assert not await projects.delete([desired.name, counterpart_name("default", new_id())])
    assert not await projects.delete([desired.name])
    assert not await _all(projects)
    await projects.ensure([desired])
    assert desired.name in await _all(projects)
    await projects.delete([])


async def test_each_installation_finds_its_own_and_adopts_by_name(projects: Projects) -> None:
    other = new_id()
    ours, theirs = _project(), _project(installation_id=other)
    ids = (await projects.ensure([ours, theirs])).ids
    assert await _all(projects) == {ours.name: ours}
    assert await _all(projects, other) == {theirs.name: theirs}
    adopted = replace(theirs, installation_id=INSTALLATION)
    assert (await projects.ensure([adopted])).ids == {theirs.name: ids[theirs.name]}
    assert await _all(projects) == {ours.name: ours, adopted.name: adopted}
    assert not await _all(projects, other)


async def test_twins_make_one_project(tmp_path: Path) -> None:
    adapters = [EvidentlyProjects(tmp_path, 10) for _ in range(8)]
    desired = _project()
    await asyncio.gather(*(adapter.ensure([desired]) for adapter in adapters), return_exceptions=True)
    assert (await adapters[0].ensure([desired])).ids
    assert await _all(adapters[0]) == {desired.name: desired}
    names = await asyncio.to_thread(os.listdir, tmp_path)
    assert [name for name in names if not name.startswith(".")] == [desired.name.rpartition(".")[2]]


async def test_foreign_edits_are_noticed_and_foreign_projects_are_unchanged(tmp_path: Path) -> None:
    adapter, desired = EvidentlyProjects(tmp_path, 10), _project()
    await adapter.ensure([desired])
    file = tmp_path / desired.name.rpartition(".")[2] / "metadata.json"
    changes: list[dict[str, object]] = [
        {"name": "other"},
        {"name": None},
        {"name": 3},
        {"description": None},
        {"version": "1"},
    ]
    for change in changes:
        file.write_text(json.dumps({**json.loads(file.read_text()), **change}))
        assert (await _all(adapter)).get(desired.name) != desired
        await adapter.ensure([desired])
        assert await _all(adapter) == {desired.name: desired}
    without_name = {key: value for key, value in json.loads(file.read_text()).items() if key != "name"}
    for text in ("{", "", "[]", "5", "null", json.dumps(without_name)):
        file.write_text(text)
        assert (await _all(adapter)).get(desired.name) != desired
        await adapter.ensure([desired])
        assert await _all(adapter) == {desired.name: desired}
    foreign = tmp_path / new_id()
    foreign.mkdir()
    (foreign / "metadata.json").write_text(json.dumps({"id": foreign.name, "name": "theirs"}))
    assert set(await _all(adapter)) == {desired.name}


async def test_an_unusable_folder_is_an_error_of_its_project_only(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    adapter = EvidentlyProjects(tmp_path, 10)
    desired = folder, file, forbidden, good = [_project() for _ in range(4)]
    ids = (await adapter.ensure([forbidden])).ids
    (tmp_path / folder.name.rpartition(".")[2] / "metadata.json").mkdir(parents=True)
    (tmp_path / file.name.rpartition(".")[2]).touch()
    read = Path.read_text

    def refuse(path: Path, encoding: str) -> str:  # root may read everything, and tests may run as root
        if ids[forbidden.name] in path.parts:
            raise PermissionError(path)
        return read(path, encoding)

    monkeypatch.setattr(Path, "read_text", refuse)
    ensured = await adapter.ensure(desired)
    assert set(ensured.refusals) == {folder.name, file.name}
    assert "Is a directory" in ensured.refusals[folder.name]
    assert "Not a directory" in ensured.refusals[file.name]
    names = await asyncio.to_thread(os.listdir, tmp_path)
    assert not [name for name in names if name.startswith(".")], "nothing is left of what was begun"
    assert await _all(adapter) == {good.name: good}


async def test_one_that_may_not_be_removed_is_refused_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    adapter = EvidentlyProjects(tmp_path, 10)
    forbidden, allowed = _project(), _project()
    ids = (await adapter.ensure([forbidden, allowed])).ids
    replace_file = Path.replace

    def refuse(path: Path, target: Path) -> Path:  # root may move everything, and tests may run as root
        if path.name == ids[forbidden.name]:
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(path))
        return replace_file(path, target)

    monkeypatch.setattr(Path, "replace", refuse)
    refusals = await adapter.delete([forbidden.name, allowed.name])
    assert set(refusals) == {forbidden.name}
    assert "Permission denied" in refusals[forbidden.name]
    assert await _all(adapter) == {forbidden.name: forbidden}


async def test_a_workspace_that_is_not_there_is_unavailable_and_not_made(tmp_path: Path) -> None:
    adapter = EvidentlyProjects(tmp_path / "unmounted", 10)
    for call in (adapter.ping(), adapter.ensure([_project()]), adapter.delete(["default.0"]), _all(adapter)):
        with pytest.raises(OutsideUnavailableError) as refused:
            await call
        assert refused.value.reason == "EvidentlyUnavailable"
    assert not (tmp_path / "unmounted").exists()


# Does not answer as a mount that hangs does not: whoever opens the file waits until somebody writes into it.
_HANG = """
import asyncio, sys
from pathlib import Path
from instance_service.evidently_adapter import EvidentlyProjects
from instance_service.ports import MonitoringProject, OutsideUnavailableError
async def main():
    try:
        await EvidentlyProjects(Path(sys.argv[1]), 0.05).ensure([MonitoringProject(sys.argv[2], "a")])
    except OutsideUnavailableError:
        print("unavailable", flush=True)
asyncio.run(main())
"""


async def test_a_hanging_workspace_blocks_only_a_few_threads_of_its_own(tmp_path: Path) -> None:
    adapter, desired = EvidentlyProjects(tmp_path, 0.02), _project()
    file = tmp_path / desired.name.rpartition(".")[2] / "metadata.json"
    file.parent.mkdir()
    os.mkfifo(file)
    problems = []
    for _ in range(60):
        with pytest.raises(OutsideUnavailableError) as refused:
            await adapter.ensure([desired])
        problems.append(refused.value.message)
    assert sum("timeout" in problem for problem in problems) == 8
    assert "hangs" in problems[-1]
    async with asyncio.timeout(10):
        assert await asyncio.to_thread(int) == 0, "the threads of all others are free"
    os.close(os.open(file, os.O_WRONLY | os.O_NONBLOCK))  # it goes on

    async def works() -> bool:
        with contextlib.suppress(OutsideUnavailableError):
            return desired.name in await _all(adapter)
        return False

    await eventually(works, 10)


async def test_a_workspace_that_hangs_does_not_hold_up_the_end_of_the_process(tmp_path: Path) -> None:
    desired = _project()
    file = tmp_path / desired.name.rpartition(".")[2] / "metadata.json"
    file.parent.mkdir()
    os.mkfifo(file)
    command = [sys.executable, "-c", _HANG, str(tmp_path), desired.name]
    ended = await asyncio.to_thread(
        subprocess.run, command, capture_output=True, text=True, check=True, timeout=30
    )
    assert ended.stdout == "unavailable\n"


async def test_evidently_reads_and_writes_the_files_of_the_adapter(tmp_path: Path) -> None:
    adapter = EvidentlyProjects(tmp_path, 10)
    kept, doomed = _project("kept"), _project("doomed")
    ids = (await adapter.ensure([kept, doomed])).ids
    command = [sys.executable, "-W", "ignore", "-c", _OPEN, str(tmp_path), ids[doomed.name]]
    opened = await asyncio.to_thread(subprocess.run, command, capture_output=True, text=True, check=False)
    assert opened.returncode == 0, opened.stderr
    assert json.loads(opened.stdout) == {
        ids[one.name]: [one.title, f"optaic:{INSTALLATION}:{one.name}!"] for one in (kept, doomed)
    }
    assert await _all(adapter) == {}  # one is gone, the other was edited: both are repaired
    await adapter.ensure([kept, doomed])
    assert await _all(adapter) == {kept.name: kept, doomed.name: doomed}
    shutil.rmtree(tmp_path / ids[kept.name])
    assert set(await _all(adapter)) == {doomed.name}
