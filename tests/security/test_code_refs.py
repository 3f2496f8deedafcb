"""A definition names code that an installed package registers; nothing else is imported, whoever wrote it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from optaic.common.v1 import flow_pb2
from optaic.definition.v1 import definition_pb2
from optaic.run.v1 import run_pb2
from support.plugin_packages import register_code
from support.worker import World, running_world
from worker.config import Settings
from worker.import_paths import UnsafeImportPathError, check_import_paths

WRITTEN = """
from pathlib import Path
Path({mark!r}).write_text("own code ran")
from optaic.plugins import Pipeline
class Own(Pipeline):
    def run(self, context):
        return None
"""


def write_module(folder: Path, mark: Path) -> None:
    """Write code as a pipeline could that writes files; it marks that it ran."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "written.py").write_text(WRITTEN.format(mark=str(mark)), encoding="utf-8")


@pytest.mark.parametrize(
    "code_ref",
    [
        "written:Own",
        "written:Pipeline",
        "os:path",
        "subprocess:Popen",
        "this:d",
        "worker.builtin.derivation:Pipeline",
        "worker.data_sweep:Any",
        "support.plugins:Pipeline",
        "support.worker_plugins:Probe.run",
        "support.worker_plugins: Probe",
        "SUPPORT.worker_plugins:Probe",
    ],
)
async def test_a_run_of_code_that_no_package_registers_fails_and_imports_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code_ref: str
) -> None:
    mark = tmp_path / "mark"
    write_module(tmp_path / "site", mark)
    monkeypatch.syspath_prepend(str(tmp_path / "site"))
    async with running_world() as world:
        run = await _refresh(world, tmp_path, code_ref)
    assert run.status == run_pb2.RUN_STATUS_FAILED
    assert run.error.type in {"PluginNotRegistered", "PluginNotFound"}
    assert "code_ref" in run.error.message
    assert not mark.exists()
    assert "written" not in sys.modules


def test_a_package_that_a_run_writes_registers_nothing(tmp_path: Path) -> None:
    """The processes of user code are forked from one that has read what was installed when it started."""
    mark = tmp_path / "mark"
    program = tmp_path / "program.py"
    program.write_text(_FORKING.format(site=str(tmp_path / "site"), mark=str(mark)), encoding="utf-8")
    (tmp_path / "site").mkdir()
    done = subprocess.run(
        [sys.executable, str(program)], capture_output=True, text=True, check=False, timeout=120
    )
    assert done.returncode == 0, done.stderr
    assert "PluginNotRegistered" in done.stdout
    assert not mark.exists()


_FORKING = """
import asyncio, sys
from pathlib import Path

sys.path.insert(0, {site!r})
SITE = Path({site!r})


def work():
    from optaic.plugins import Pipeline, PluginError, load
    try:
        load("written:Own", Pipeline)
    except PluginError as error:
        print(error.type, flush=True)


async def main():
    from worker.children import Forkserver
    forkserver = Forkserver(["worker.loaded_code"])
    await forkserver.start()
    (SITE / "written.py").write_text("open({mark!r}, 'w')")
    (SITE / "written-1.0.dist-info").mkdir()
    (SITE / "written-1.0.dist-info/METADATA").write_text("Name: written")
    (SITE / "written-1.0.dist-info/entry_points.txt").write_text("[optaic.definitions]\\na = written:Own")
    await (await forkserver.run(work)).wait()
    await forkserver.stop()


if __name__ == "__main__":
    asyncio.run(main())
"""


def test_a_worker_does_not_start_where_runs_can_write_what_python_imports(tmp_path: Path) -> None:
    settings = Settings(
        instance_address="127.0.0.1:1",
        run_address="127.0.0.1:1",
        executor_token="secret",
        data_root=(tmp_path / "data").as_uri(),
        run_output_folder=str(tmp_path / "output"),
    )
    check_import_paths(settings)
    for folder, name in (("data", "OPTAIC_DATA_ROOT"), ("output", "OPTAIC_RUN_OUTPUT_FOLDER")):
        for inside in ("", "default/site"):
            place = register_code(tmp_path / folder / inside, "written:Own")
            with pytest.raises(UnsafeImportPathError, match=name):
                check_import_paths(settings, [str(place)])
    link = tmp_path / "link"
    link.symlink_to(tmp_path / "data")
    with pytest.raises(UnsafeImportPathError, match="OPTAIC_DATA_ROOT"):
        check_import_paths(settings, [str(link)])
    (tmp_path / "open").mkdir()
    (tmp_path / "open").chmod(0o777)
    with pytest.raises(UnsafeImportPathError, match="every user may write"):
        check_import_paths(settings, [str(tmp_path / "open")])
    (tmp_path / "data-of-another").mkdir()
    check_import_paths(settings, [str(tmp_path / "data-of-another"), str(tmp_path / "absent")])


@pytest.mark.parametrize("flags", [(), ("-P",)])
def test_a_worker_imports_nothing_from_the_folder_it_is_started_in(
    tmp_path: Path, flags: tuple[str, ...]
) -> None:
    """The processes of user code inherit the path of the worker."""
    program = tmp_path / "program.py"
    program.write_text(_STARTING, encoding="utf-8")
    done = subprocess.run(
        [sys.executable, *flags, str(program)],
        env={
            "PATH": "/usr/bin",
            "OPTAIC_INSTANCE_ADDRESS": "127.0.0.1:1",
            "OPTAIC_RUN_ADDRESS": "127.0.0.1:1",
            "OPTAIC_EXECUTOR_TOKEN": "secret",
            "OPTAIC_DATA_ROOT": str(tmp_path / "data"),
        },
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == ["worker", "False", "child", "False"]


_STARTING = """
import asyncio, os, sys
from worker import environment
from worker.children import Forkserver


def show(who):
    print(who, bool({os.getcwd(), ""}.intersection(sys.path)), flush=True)


async def main():
    environment.take()
    show("worker")
    forkserver = Forkserver(["worker.frames"])
    await forkserver.start()
    await (await forkserver.run(show, "child")).wait()
    await forkserver.stop()


if __name__ == "__main__":
    environment.leave()
    asyncio.run(main())
"""


async def _refresh(world: World, folder: Path, code_ref: str) -> run_pb2.Run:
    world.definitions.content["probe"] = definition_pb2.DefinitionVersion(code_ref=code_ref)
    run = world.runs.submit(world.dataset(definition="probe"), flow_pb2.FLOW_KIND_REFRESH)
    await world.execute(run, folder / "data")
    return run
