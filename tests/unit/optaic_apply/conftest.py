"""What there is, for the tests of this folder."""

import pytest

from support.apply import Memory


@pytest.fixture
def memory() -> Memory:
    """Nothing but the definitions that everybody has."""
    return Memory("file", "sql")
