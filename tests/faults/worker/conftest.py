"""One stack for all files of this folder, whose worker the tests kill."""

import contextlib
from collections.abc import AsyncIterator, Generator
from pathlib import Path

import pytest

from support.mortal_worker import MortalWorker, running_mortal_worker
from support.seven_kinds import SevenKinds, seven_kinds

_FOLDER = Path(__file__).parent
_running = contextlib.ExitStack()
_started: list[MortalWorker] = []


@pytest.fixture
def mortal(tmp_path_factory: pytest.TempPathFactory) -> MortalWorker:
    if not _started:
        folder = tmp_path_factory.mktemp("mortal")
        _started.append(_running.enter_context(running_mortal_worker(folder)))
    return _started[0]


@pytest.fixture
async def kinds(mortal: MortalWorker) -> AsyncIterator[SevenKinds]:
    async with seven_kinds(mortal) as found:
        yield found


@pytest.hookimpl(wrapper=True)
def pytest_runtest_teardown(nextitem: pytest.Item | None) -> Generator[None]:
    """Stop the stack after the last test of this folder; a session of many others does not keep it."""
    try:
        yield
    finally:
        if nextitem is None or nextitem.path.parent != _FOLDER:
            _started.clear()
            _running.close()
