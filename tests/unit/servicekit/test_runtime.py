"""The memory of a process that serves."""

import gc

from servicekit import runtime


def test_what_is_loaded_is_not_looked_at_again() -> None:
    before = len(gc.get_objects())
    try:
        runtime.keep_loaded()
        assert gc.get_freeze_count() >= before / 2
        assert len(gc.get_objects()) < before / 10
    finally:
        gc.unfreeze()
