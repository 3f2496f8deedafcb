"""Processor time of a command, start-up included: --version, and instance list and get, of a service on this machine.

Beside each, in the same run: a Python that does nothing.
"""

from __future__ import annotations

import os
import resource
import statistics
import subprocess
import sys
from collections.abc import Sequence

from bench.report import Row
from optaic.instance.v1 import instance_service_pb2
from support.command_line import PRICES
from support.fake_services import fake_services

_TIMES = 15
_COMMANDS = (("--version",), ("instance", "list"), ("instance", "get", "prices"))
_IMPORT = "import optaic"


async def measure() -> list[Row]:
    """Return the median times; the limits are those of a quiet machine."""
    with fake_services() as services:
        services.on("GetInstance", PRICES)
        services.on("ListInstances", instance_service_pb2.ListInstancesResponse(instances=[PRICES]))
        environment = {**os.environ, "OPTAIC_INSTANCE_ADDRESS": services.address}
        # The command finds its own code compiled, as an installed one does.
        environment.pop("PYTHONDONTWRITEBYTECODE", None)
        bare = _milliseconds(["-c", "pass"], environment)
        rows = [
            _row("optaic", command, 400, ["-m", "optaic.cli", *command], environment, bare)
            for command in _COMMANDS
        ]
        return [_row("Python:", [_IMPORT], 100, ["-c", _IMPORT], environment, bare), *rows]


def _row(
    program: str,
    words: Sequence[str],
    most: int,
    arguments: Sequence[str],
    environment: dict[str, str],
    bare: float,
) -> Row:
    """Return the figure of a command, its limit written as the ratio that the other limits are."""
    took = _milliseconds(arguments, environment)
    name = f"{program} {' '.join(words)}, at most {most} ms (peer: Python that does nothing)"
    return Row(name, took, "ms", bare, took / bare, most / bare)


def _milliseconds(arguments: Sequence[str], environment: dict[str, str]) -> float:
    command = [sys.executable, *arguments]
    taken = []
    for _ in range(_TIMES):
        before = _of_children()
        subprocess.run(command, env=environment, stdout=subprocess.DEVNULL, check=True)
        taken.append(_of_children() - before)
    return statistics.median(taken) * 1000


def _of_children() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime
