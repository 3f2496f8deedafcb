"""How a process that the tests have forked ends with them."""

from __future__ import annotations

import multiprocessing
import os
import threading


def end_with_the_tests(log: str) -> None:
    """Write the output of this process to a file, and end when the tests have, however they did."""
    threading.Thread(target=_await_the_tests, daemon=True).start()
    with open(log, "ab") as file:  # noqa: PTH123 - a descriptor is wanted
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)


def _await_the_tests() -> None:
    """End when they have; the forkserver in between waits for its children."""
    tests = multiprocessing.parent_process()
    assert tests is not None
    tests.join()
    os._exit(1)
