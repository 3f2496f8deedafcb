"""One stack for all stories; each story uses a project of its own."""

from collections.abc import Iterator

import pytest

from support.centrifugo import find_centrifugo
from support.plugin_packages import EXAMPLE
from support.stack import RunningStack, running_stack


@pytest.fixture(scope="package")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningStack]:
    # Where Centrifugo is not there yet, the stories do not wait minutes until another process has built it.
    centrifugo = find_centrifugo()
    live = (
        {"OPTAIC_CENTRIFUGO": "embedded", "OPTAIC_CENTRIFUGO_BINARY": str(centrifugo)} if centrifugo else {}
    )
    with running_stack(tmp_path_factory.mktemp("stack"), EXAMPLE, **live) as running:
        yield running
