"""Names of columns that a store or a message cannot carry."""

from __future__ import annotations

import re

import pytest

from optaic.plugins import InvalidColumnName
from worker.builtin.column_names import check_column_names


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("no\0te", r"'no\x00te'"),
        ("\0", r"'\x00'"),
        ("", "no name"),
        ("half \ud83d", r"'half \ud83d'"),
        ("x" * 1001, "1001 characters"),
    ],
)
def test_a_name_that_cannot_be_carried_is_refused_with_its_place(name: str, said: str) -> None:
    with pytest.raises(InvalidColumnName, match=re.escape(said)) as refusal:
        check_column_names(["date", "entity", name])
    assert "column 3" in str(refusal.value)
    str(refusal.value).encode()


def test_all_such_names_are_told_at_once() -> None:
    with pytest.raises(InvalidColumnName, match=r"column 1 .*; column 3"):
        check_column_names(["", "fine", "a\0"])


@pytest.mark.parametrize("name", ["a b", " ", "é", "😀", "a\nb", "a.b", "%", "x" * 1000, "\u2028", "\uffff"])
def test_every_other_name_is_taken(name: str) -> None:
    check_column_names([name])
