"""A page token leads back to its place, in its own list only."""

import base64

import pytest
from hypothesis import given
from hypothesis import strategies as st

from servicekit import pages
from servicekit.errors import InvalidArgumentError

FILTER = pages.filter_hash("kind = DATASET", 50)


@given(st.dictionaries(st.text(), st.none() | st.booleans() | st.integers() | st.text()))
def test_a_token_leads_back_to_its_position(values: dict[str, object]) -> None:
    assert pages.decode(pages.encode(values, FILTER), FILTER) == values


@given(st.text() | st.from_regex(r"\A[A-Za-z0-9_-]+\Z"))
def test_any_other_text_is_a_typed_error(token: str) -> None:
    with pytest.raises(InvalidArgumentError) as failure:
        pages.decode(token, FILTER)
    assert failure.value.field_violations[0].field == "page_token"


def test_a_token_of_another_filter_is_refused() -> None:
    token = pages.encode({"id": 1}, pages.filter_hash("kind = MODEL", 50))
    with pytest.raises(InvalidArgumentError):
        pages.decode(token, FILTER)


@pytest.mark.parametrize("json", [b"1", b"[]", b"[1,2,3]", b"[" * 100_000, b"\xff", b'["x"]'])
def test_a_forged_token_is_refused(json: bytes) -> None:
    token = base64.urlsafe_b64encode(json).decode()
    with pytest.raises(InvalidArgumentError):
        pages.decode(token, FILTER)


def test_a_token_is_safe_in_a_url() -> None:
    assert pages.encode({"x": "ÿþ?~>" * 20}, FILTER).replace("-", "").replace("_", "").isalnum()


def test_a_page_ends_before_it_is_too_large() -> None:
    assert pages.fit([1, 2, 3], 2, lambda _: 1) == [1, 2]
    assert pages.fit([1, 2, 3], 3, lambda _: 1_400_000) == [1, 2]
    assert pages.fit([1, 2], 2, lambda _: 5_000_000) == [1]
    assert pages.fit([], 2, lambda _: 1) == []
