"""What the built-in pipelines may read in these tests."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from support.sources import allowed


@pytest.fixture(autouse=True)
def _temporary_files_are_allowed() -> Iterator[None]:
    with allowed():
        yield
