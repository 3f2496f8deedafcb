"""What sources may read in these tests, unless a test says otherwise."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from support.sources import allowed


@pytest.fixture(autouse=True)
def _temporary_files_are_allowed() -> Iterator[None]:
    with allowed():
        yield
