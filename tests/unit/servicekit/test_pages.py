"""A page token leads back to its place, for its own tenant, list and filters only."""

import base64

import pytest
from hypothesis import given
from hypothesis import strategies as st

from servicekit import pages
from servicekit.errors import InvalidArgumentError
from servicekit.pages import PageTokens
from servicekit.signing import Signer

SIGNER = Signer(b"k" * 32)
TOKENS = PageTokens(SIGNER, "acme", "ListInstances", ["dataset"], {"team": "a"}, "")


@given(st.dictionaries(st.text(), st.none() | st.booleans() | st.integers() | st.text()))
def test_a_token_leads_back_to_its_position(values: dict[str, object]) -> None:
    assert TOKENS.decode(TOKENS.encode(values)) == values


def test_no_token_is_before_the_first_row() -> None:
    assert TOKENS.decode("") == {}


@given(st.text(min_size=1) | st.from_regex(r"\A[A-Za-z0-9_-]+\Z"))
def test_any_other_text_is_a_typed_error(token: str) -> None:
    with pytest.raises(InvalidArgumentError) as failure:
        TOKENS.decode(token)
    assert failure.value.field_violations[0].field == "page_token"


@pytest.mark.parametrize(
    "other",
    [
        PageTokens(SIGNER, "rival", "ListInstances", ["dataset"], {"team": "a"}, ""),
        PageTokens(SIGNER, "acme", "ListProjects", ["dataset"], {"team": "a"}, ""),
        PageTokens(SIGNER, "acme", "ListInstances", ["dataset"], {"team": "b"}, ""),
        PageTokens(SIGNER, "acme", "ListInstances", ["dataset", {"team": "a"}], ""),
        PageTokens(SIGNER, "acme", "ListInstances", ["dataset"], {"team": "a"}),
        PageTokens(Signer(b"l" * 32), "acme", "ListInstances", ["dataset"], {"team": "a"}, ""),
    ],
    ids=["tenant", "method", "filter", "grouping", "fewer filters", "key"],
)
def test_a_token_of_another_list_is_refused(other: PageTokens) -> None:
    with pytest.raises(InvalidArgumentError):
        TOKENS.decode(other.encode({"id": 1}))


@given(st.data())
def test_a_token_with_one_changed_bit_is_refused(data: st.DataObject) -> None:
    token = TOKENS.encode({"name": "momentum", "id": 17})
    sealed = bytearray(base64.urlsafe_b64decode(token + "=" * (-len(token) % 4)))
    bit = data.draw(st.integers(0, 8 * len(sealed) - 1))
    sealed[bit // 8] ^= 1 << bit % 8
    with pytest.raises(InvalidArgumentError):
        TOKENS.decode(base64.urlsafe_b64encode(bytes(sealed)).decode())


@pytest.mark.parametrize("json", [b"1", b"[]", b"[" * 100_000, b"\xff", b'{"name":"x"}'])
def test_a_position_without_a_seal_is_refused(json: bytes) -> None:
    with pytest.raises(InvalidArgumentError):
        TOKENS.decode(base64.urlsafe_b64encode(json).decode())


def test_a_token_is_safe_in_a_url() -> None:
    assert TOKENS.encode({"x": "ÿþ?~>" * 20}).replace("-", "").replace("_", "").isalnum()


def test_a_page_ends_before_it_is_too_large() -> None:
    assert pages.fit([1, 2, 3], 2, lambda _: 1) == [1, 2]
    assert pages.fit([1, 2, 3], 3, lambda _: 1_400_000) == [1, 2]
    assert pages.fit([1, 2], 2, lambda _: 5_000_000) == [1]
    assert pages.fit([], 2, lambda _: 1) == []


def test_a_short_key_is_refused() -> None:
    with pytest.raises(ValueError, match="at least 32 bytes"):
        Signer(b"short")
