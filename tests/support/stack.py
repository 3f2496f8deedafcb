"""A whole embedded stack for stories over separate processes; it knows no story."""

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import devstack
from support.plugin_packages import EXAMPLE, REGISTERED, install_package


@dataclass(frozen=True)
class RunningStack:
    """Where a stack is reached, and what it is made of."""

    settings: devstack.Settings
    endpoints: devstack.Endpoints

    def client_environment(self) -> dict[str, str]:
        """Return environment by which a client program finds the services."""
        return {
            **self.endpoints.addresses(),
            "OPTAIC_TOKEN": "development",
            "OPTAIC_STATE": str(self.settings.root),
        }

    def processes(self) -> dict[str, int]:
        """Pids by name of what runs."""
        report = devstack.status(self.settings)
        return {name: entry["pid"] for name, entry in report["processes"].items() if entry["pid"]}


def stack_environment(state: Path, package: Path = EXAMPLE) -> dict[str, str]:
    """Return the variables of a stack of tests with its state in this folder, with a package of plugins installed."""
    # The worker finds `support.plugins` among the tests, and all processes another team's package beside the project.
    paths = [
        str(Path(__file__).parents[1]),
        str(REGISTERED),
        str(install_package(package, state.with_name(f"{state.name}-packages"))),
    ]
    return {
        "OPTAIC_STATE": str(state),
        "OPTAIC_GATEWAY": "false",  # few stories need it, and its start costs a second of CPU time
        "OPTAIC_START_TIMEOUT_SECONDS": "360",  # a minute, unless the machine is busy
        "OPTAIC_DRIFT_INTERVAL_SECONDS": "2",  # what somebody does in Prefect is undone while a story waits
        # The worker hears of dispatched runs at once. A look into the pool costs Prefect a twentieth of a second of CPU time.
        "OPTAIC_POLL_SECONDS": "2",
        # Submissions and changes wake the loops of the services; looks without a reason cost CPU time all the while.
        "OPTAIC_DISPATCH_INTERVAL_SECONDS": "1",
        "OPTAIC_WATCH_POLL_SECONDS": "2",
        "OPTAIC_SOURCE_ROOTS": json.dumps([tempfile.gettempdir()]),
        "PYTHONPATH": os.pathsep.join(paths),
    }


@contextmanager
def running_stack(state: Path, package: Path = EXAMPLE, **changes: str) -> Iterator[RunningStack]:
    """Start a stack under a supervisor of its own, with a package of plugins installed; stop it at the end.

    `changes` are more variables of its environment.
    """
    settings = devstack.Settings(state=state)
    environment = {**os.environ, **stack_environment(state, package), **changes}
    try:
        # A process of its own, as from a terminal: the supervisor must not be this process's child.
        subprocess.run([sys.executable, "-m", "devstack", "up"], env=environment, check=True, timeout=400)
        endpoints = devstack.Endpoints.load(devstack.State(settings.root))
        assert endpoints is not None
        yield RunningStack(settings, endpoints)
    finally:
        devstack.down(settings)
