"""The code of an earlier release, from the repository's own history, and a stack that runs it."""

import json
import os
import signal
import subprocess
import sys
import tarfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path

import pytest

import devstack
from devstack import leftovers
from support.plugin_packages import UPGRADE, install_package
from support.polling import eventually

ROOT = Path(__file__).parents[2]
_START_SECONDS = 400


@dataclass(frozen=True)
class EarlierStack:
    """A running stack of an earlier release. Its own code must be asked: today's may know its state no more."""

    code: Path
    environment: dict[str, str]
    settings: devstack.Settings

    def run(self, program: Path, *arguments: str) -> str:
        """Run a program with the earlier release's client; return what it printed.

        Raises:
            CalledProcessError: It failed.
        """
        command = [
            sys.executable,
            "-P",
            str(program),
            *arguments,
        ]  # -P: its folder is no place to import from
        finished = subprocess.run(
            command, env=self.environment, stdout=subprocess.PIPE, text=True, check=True, timeout=300
        )
        return finished.stdout

    def kill_worker(self) -> None:
        """Kill the worker at once, and see to it that the supervisor starts none again."""
        os.kill(self._supervisor(), signal.SIGSTOP)
        pid, _ = leftovers.recorded(self.settings.root)["worker"]
        os.kill(pid, signal.SIGKILL)

    async def crash(self) -> None:
        """Kill the supervisor, so that it puts nothing in order; its guard ends the other processes."""
        os.kill(self._supervisor(), signal.SIGKILL)
        state = devstack.State(self.settings.root)
        await eventually(lambda: not state.in_use(), 60, "the crashed stack still has processes")

    def _supervisor(self) -> int:
        known = devstack.State(self.settings.root).supervisor()
        assert known is not None, "the stack has no supervisor"
        return int(known["pid"])


def check_out(commit: str, target: Path) -> Path:
    """Write the tree of a commit into a folder; skip the test where the history does not reach back so far."""
    archive = subprocess.run(["git", "archive", commit], cwd=ROOT, capture_output=True, check=False)  # noqa: S607 - git is one of the three tools that a machine must have
    if archive.returncode:
        pytest.skip(f"the repository's history does not hold {commit}: {archive.stderr.decode().strip()}")
    with tarfile.open(fileobj=BytesIO(archive.stdout)) as files:
        files.extractall(target, filter="data")
    return target


@contextmanager
def earlier_stack(commit: str, folder: Path) -> Iterator[EarlierStack]:
    """Start a stack of that commit's code below `folder`; its state stays in `folder / "state"` afterwards."""
    code = check_out(commit, folder / "code")
    packages = install_package(UPGRADE, folder / "packages")
    paths = [code / name for name in ("shared", "services", "deploy", "tests")]
    settings = devstack.Settings(state=folder / "state")
    environment = {
        **os.environ,
        # These come before the paths of the installed project.
        "PYTHONPATH": os.pathsep.join(map(str, [*paths, packages])),
        "OPTAIC_STATE": str(settings.root),
        "OPTAIC_START_TIMEOUT_SECONDS": "360",
        "OPTAIC_POLL_SECONDS": "0.5",
        # The sources of the state lie beside it.
        "OPTAIC_SOURCE_ROOTS": json.dumps([str(folder)]),
    }
    command = [sys.executable, "-m", "devstack", "up"]
    try:
        subprocess.run(command, env=environment, check=True, timeout=_START_SECONDS)
        yield EarlierStack(code, environment, settings)
    finally:
        devstack.down(settings)
