"""The memory of a process that serves."""

import ctypes
import gc
import subprocess
import sys

import pytest

from servicekit import runtime

_LEAVE_HOLES = """
import psutil
from servicekit import runtime
process = psutil.Process()
blocks = [b"x" * 50_000 for _ in range(4_000)]
del blocks[::2], blocks[1::2]
kept = blocks[-1]
before = process.memory_full_info().uss
runtime.give_back()
print(before - process.memory_full_info().uss)
"""


def test_what_is_loaded_is_not_looked_at_again() -> None:
    before = len(gc.get_objects())
    try:
        runtime.keep_loaded()
        assert gc.get_freeze_count() >= before / 2
        assert len(gc.get_objects()) < before / 10
    finally:
        gc.unfreeze()


@pytest.mark.skipif(not hasattr(ctypes.CDLL(None), "malloc_trim"), reason="it is of the GNU C library")
def test_free_memory_between_what_is_used_is_given_back() -> None:
    given = subprocess.run([sys.executable, "-c", _LEAVE_HOLES], check=True, capture_output=True)
    assert int(given.stdout) > 50_000_000
