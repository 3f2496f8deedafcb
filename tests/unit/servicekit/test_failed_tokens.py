"""An address that sends many invalid tokens is not answered with a signature check each; others are."""

from __future__ import annotations

import pytest
from joserfc.jwk import Key

from servicekit.errors import ResourceExhaustedError, UnauthenticatedError
from servicekit.failed_tokens import FailedTokens, address_of
from servicekit.oidc.signatures import Token, is_signed
from support.oidc import OidcWorld

PEER, OTHER = "ipv4:10.0.0.1:5678", "ipv4:10.0.0.2:5678"


@pytest.mark.parametrize(
    ("peer", "address"),
    [
        (PEER, "ipv4:10.0.0.1"),
        ("ipv6:[::1]:80", "ipv6:[::1]"),
        ("ipv6:%5B::1%5D:80", "ipv6:%5B::1%5D"),
        ("unix:", "unix:"),
    ],
)
def test_the_port_of_a_peer_does_not_count(peer: str, address: str) -> None:
    assert address_of(peer) == address


def test_an_address_may_fail_a_hundred_times_at_once_and_twenty_times_per_second() -> None:
    seconds = 100.0
    failed = FailedTokens(lambda: seconds)
    for _ in range(100):
        failed.check(PEER)
        failed.count(PEER)
    with pytest.raises(ResourceExhaustedError) as refusal:
        failed.check("ipv4:10.0.0.1:9999")
    assert (refusal.value.reason, refusal.value.retry_seconds) == ("RATE_LIMITED", 1.0)
    failed.check(OTHER)
    seconds += 1
    for _ in range(20):
        failed.check(PEER)
        failed.count(PEER)
    with pytest.raises(ResourceExhaustedError):
        failed.check(PEER)


def test_a_token_that_turns_out_to_be_valid_counts_no_more() -> None:
    failed = FailedTokens(lambda: 100.0, per_second=1, at_once=2)
    failed.take_back(PEER)  # of nobody
    for _ in range(10):
        failed.count(PEER)
        failed.count(PEER)
        with pytest.raises(ResourceExhaustedError):
            failed.check(PEER)
        failed.take_back(PEER)
        failed.check(PEER)
        failed.take_back(PEER)
        failed.take_back(PEER)  # never below none
    assert failed._failures == {"ipv4:10.0.0.1": (0.0, 100.0)}


def test_addresses_that_failed_long_ago_are_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("servicekit.failed_tokens._MOST_ADDRESSES", 10)
    failed = FailedTokens()
    for number in range(100):
        failed.count(f"ipv4:10.0.0.{number}:1")
    assert len(failed._failures) == 10


async def test_a_flood_of_forged_tokens_is_not_verified(monkeypatch: pytest.MonkeyPatch) -> None:
    world, checked = OidcWorld(), 0

    def count(token: Token, key: Key) -> bool:
        nonlocal checked
        checked += 1
        return is_signed(token, key)

    monkeypatch.setattr("servicekit.oidc.verifier.is_signed", count)
    authenticator = world.authenticator
    known = world.token()
    await authenticator.authenticate({"authorization": f"Bearer {known}"}, PEER, ())
    refusals = {"UNAUTHENTICATED": 0, "RATE_LIMITED": 0}
    for number in range(1_000):
        forged = world.token(sub=f"user{number}")[:-8] + "AAAAAAAA"
        with pytest.raises((UnauthenticatedError, ResourceExhaustedError)) as refusal:
            await authenticator.authenticate({"authorization": f"Bearer {forged}"}, PEER, ())
        refusals[refusal.value.reason] += 1
    assert refusals["RATE_LIMITED"] >= 500
    assert checked == 1 + refusals["UNAUTHENTICATED"]
    assert (await authenticator.authenticate({"authorization": f"Bearer {known}"}, PEER, ())).actor == "ada"
    fresh = world.token(sub="grace")
    assert (
        await authenticator.authenticate({"authorization": f"Bearer {fresh}"}, OTHER, ())
    ).actor == "grace"
