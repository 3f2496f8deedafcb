"""A store whose place is away says so, whatever the library below calls it; of a tree of causes every line is told."""

from __future__ import annotations

import pytest
from deltalake.exceptions import DeltaError

from optaic.plugins import PluginError, StoreRefused, StoreUnavailable
from optaic.plugins.words import describe_error
from worker.builtin.store_errors import typed

_TREE = "Generic S3 error\n  \x1b[31m↳\x1b[0m Error performing PUT http://s3/x in 3s\n   \x1b[31m↳\x1b[0m HTTP error\nwrite to us\n"


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (DeltaError(f"Failed to parse parquet: External: {_TREE}"), StoreUnavailable),
        (DeltaError("Error interacting with object store: Generic S3 error"), StoreUnavailable),
        (OSError(_TREE), StoreUnavailable),
        (DeltaError("schema of the table differs"), StoreRefused),
    ],
)
def test_the_type_says_whether_the_place_is_away(error: Exception, expected: type[PluginError]) -> None:
    @typed
    def fail() -> None:
        raise error

    with pytest.raises(expected) as caught:
        fail()
    assert type(caught.value) is expected


def test_the_causes_of_an_error_are_told_and_advice_is_not() -> None:
    assert (
        describe_error(OSError(_TREE))
        == "Generic S3 error: Error performing PUT http://s3/x in 3s: HTTP error"
    )
    assert describe_error(ValueError("one\nadvice")) == "one"
    assert len(describe_error(ValueError("x" * 10_000))) == 500
