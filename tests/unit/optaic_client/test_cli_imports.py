"""What a command loads: its own module and the client, and nothing that only other commands need."""

import subprocess
import sys

import pytest

from optaic.client import AsyncClient

# What reads data, applies files, starts the stack, and hides secrets in error messages.
_NEEDLESS = {
    "deltalake",
    "devstack",
    "obstore",
    "optaic.apply",
    "optaic.client.reading",
    "optaic.expression",
    "optaic.moving",
    "optaic.plugins",
    "optaic.storage",
    "polars",
    "pyarrow",
    "redaction",
    "servicekit",
    "yaml",
}
_RICH = "rich.console"
_PROGRAM = """
import atexit, sys
atexit.register(lambda: print(*sys.modules, file=sys.stderr))
from optaic.cli import main
main()
"""


def _loaded(*arguments: str) -> set[str]:
    done = subprocess.run(
        [sys.executable, "-c", _PROGRAM, *arguments], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return set(done.stderr.split())


@pytest.mark.parametrize("arguments", [("list",), ("get", "prices")])
@pytest.mark.usefixtures("optaic")
def test_showing_instances_loads_nothing_that_only_other_commands_need(arguments: tuple[str, ...]) -> None:
    assert _loaded("instance", *arguments) & _NEEDLESS == set()


@pytest.mark.usefixtures("optaic")
def test_json_is_written_without_loading_what_draws_tables() -> None:
    assert _RICH in _loaded("instance", "list")
    assert _RICH not in _loaded("instance", "list", "-o", "json")


def test_the_version_is_shown_without_loading_grpc() -> None:
    assert "grpc" not in _loaded("--version")


def test_the_package_loads_no_client_before_one_is_named() -> None:
    program = "import optaic, sys; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert {"grpc", "google.protobuf", AsyncClient.__module__} & set(done.stdout.split()) == set()
