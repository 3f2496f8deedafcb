"""Which tokens of an issuer are accepted, how its keys are read, and what is remembered."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from joserfc.jwk import ECKey, Key, OctKey, RSAKey

from servicekit.auth import make_authenticator
from servicekit.errors import UnauthenticatedError, UnavailableError
from servicekit.oidc import signatures
from support.oidc import EC, ED, ISSUER, RSA, STRANGER, FakeIssuer, OidcWorld, oidc_settings, public, sign

P384 = ECKey.generate_key("P-384", parameters={"kid": "p384"}, private=True)
NEW = RSAKey.generate_key(2048, parameters={"kid": "new"}, private=True)


@pytest.mark.parametrize(
    ("key", "algorithm"),
    [(RSA, "RS256"), (RSA, "PS256"), (EC, "ES256"), (P384, "ES384"), (ED, "EdDSA"), (ED, "Ed25519")],
)
async def test_each_algorithm_of_the_list_is_accepted(key: Key, algorithm: str) -> None:
    world = OidcWorld()
    world.issuer.answers[world.issuer.keys_url] = public(RSA, EC, ED, P384)
    assert (await world.verify(sign(world.claims(), key, algorithm))).actor == "ada"


def test_the_list_of_algorithms_has_no_mac() -> None:
    assert set(signatures.ALGORITHMS) == {"RS256", "PS256", "ES256", "ES384", "EdDSA", "Ed25519"}


@pytest.mark.parametrize("kind", ["JWT", "jwt", "at+jwt", "application/at+jwt", ...])
async def test_a_token_may_name_its_type(kind: Any) -> None:
    world = OidcWorld()
    header = {"alg": "RS256", "kid": "rsa", **({} if kind is ... else {"typ": kind})}
    assert (await world.verify(sign(world.claims(), header=header))).actor == "ada"


@pytest.mark.parametrize(
    "changes",
    [
        {"exp": -59},
        {"nbf": 59},
        {"iat": 59},
        {"nbf": -1e9},
    ],
)
async def test_clocks_may_differ_by_a_minute(changes: dict[str, float]) -> None:
    world = OidcWorld()
    assert await world.verify(world.token(**{name: world.now + value for name, value in changes.items()}))


@pytest.mark.parametrize("audience", ["optaic", ["console", "optaic"]])
async def test_one_audience_of_several_is_enough(audience: Any) -> None:
    world = OidcWorld()
    assert await world.verify(world.token(aud=audience))


async def test_settings_name_the_claims_and_what_their_values_mean() -> None:
    world = OidcWorld(
        oidc_tenant_claim="https://example.com/tenant",
        oidc_actor_claim="email",
        oidc_roles_claim="/realm~1access/roles",
        oidc_roles={"a": "viewer", "b": "admin", "c": "executor", "d": "service"},
    )
    claims = {"https://example.com/tenant": "acme", "email": "ada@example.com", "tenant": "rival"}
    for given, roles in (
        (["a", "b", "x"], {"viewer", "admin"}),
        ("a c", {"viewer", "executor"}),
        (["d"], {"service"}),
        ([], set()),
    ):
        caller = await world.verify(world.token(**claims, **{"realm/access": {"roles": given}}))
        assert (caller.tenant_id, caller.actor) == ("acme", "ada@example.com")
        assert caller.roles == roles


@pytest.mark.parametrize(
    ("values", "place"),
    [
        ({"oidc_issuers": ()}, "OPTAIC_OIDC_ISSUERS"),
        ({"oidc_issuers": ("",)}, "OPTAIC_OIDC_ISSUERS"),
        ({"oidc_issuers": ("http://login.example.com",)}, "OPTAIC_OIDC_ISSUERS.*https"),
        ({"oidc_issuers": ("http://127.0.0.1.example.com",)}, "OPTAIC_OIDC_ISSUERS.*https"),
        ({"oidc_issuers": ("file:///etc/passwd",)}, "OPTAIC_OIDC_ISSUERS"),
        ({"oidc_issuers": ("https://user:password@login.example.com",)}, "OPTAIC_OIDC_ISSUERS"),
        ({"oidc_issuers": (f"{ISSUER}?x=1",)}, "OPTAIC_OIDC_ISSUERS"),
        ({"oidc_issuers": ("https://login.example.com:port",)}, "OPTAIC_OIDC_ISSUERS"),
        ({"oidc_audiences": ()}, "OPTAIC_OIDC_AUDIENCES"),
        ({"oidc_audiences": ("",)}, "OPTAIC_OIDC_AUDIENCES"),
        ({"oidc_roles": {}}, "OPTAIC_OIDC_ROLES"),
        ({"oidc_roles": {"users": "root"}}, "OPTAIC_OIDC_ROLES: root"),
        ({"oidc_tenants": {"https://other.example.com": ("acme",)}}, "OPTAIC_OIDC_TENANTS"),
        ({"oidc_tenants": {ISSUER: ()}}, "OPTAIC_OIDC_TENANTS"),
        ({"oidc_tenants": {ISSUER: ("a.b",)}}, "OPTAIC_OIDC_TENANTS"),
        ({"oidc_issuers": (ISSUER, "https://other.example.com")}, "OPTAIC_OIDC_TENANTS"),
        (
            {"oidc_issuers": (ISSUER, "https://other.example.com"), "oidc_tenants": {ISSUER: ("acme",)}},
            "OPTAIC_OIDC_TENANTS.*other",
        ),
    ],
)
def test_a_service_with_a_wrong_setting_does_not_start(values: dict[str, Any], place: str) -> None:
    with pytest.raises(ValueError, match=place):
        make_authenticator(oidc_settings(**values))


@pytest.mark.parametrize(
    "issuer", [ISSUER, "http://127.0.0.1:8080", "http://localhost:1", "http://[::1]:2/realms/x"]
)
def test_an_issuer_is_https_or_on_this_machine(issuer: str) -> None:
    assert make_authenticator(oidc_settings(oidc_issuers=(issuer,))).is_open is False


async def test_keys_are_read_once_for_many_calls() -> None:
    world = OidcWorld()
    callers = await asyncio.gather(*(world.verify(world.token(sub=f"user{number}")) for number in range(20)))
    assert len({caller.actor for caller in callers}) == 20
    assert world.issuer.asked == [world.issuer.place, world.issuer.keys_url]


async def test_an_unknown_key_is_looked_for_once_and_then_found() -> None:
    world = OidcWorld()
    await world.verify(world.token())
    world.issuer.answers[world.issuer.keys_url] = public(RSA, NEW)
    world.advance(31)
    assert await world.verify(sign(world.claims(), NEW))
    assert world.issuer.reads == 2


async def test_invented_keys_make_the_issuer_no_more_work_than_two_reads_a_minute() -> None:
    world = OidcWorld()
    await world.verify(world.token())
    for second in range(60):
        world.seconds += 1
        for number in range(5):
            key_id = {"alg": "RS256", "kid": f"{second}-{number}"}
            with pytest.raises(UnauthenticatedError):
                await world.verify(sign(world.claims(), STRANGER, header=key_id))
    assert world.issuer.reads == 3
    assert await world.verify(world.token())


async def test_invented_keys_do_not_keep_others_from_being_served() -> None:
    world = OidcWorld()
    await world.verify(world.token())
    released = asyncio.Event()
    answer = world.issuer.fetch

    async def slow(url: str) -> bytes:
        await released.wait()
        return await answer(url)

    (issuer,) = world.verifier._issuers.values()
    issuer._fetch = slow
    world.advance(31)
    invented = [sign(world.claims(), STRANGER, header={"alg": "RS256", "kid": f"{n}"}) for n in range(100)]
    waiting = [asyncio.create_task(world.verify(token)) for token in invented]
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    assert await world.verify(world.token(sub="grace"))  # a known key waits for nothing
    refused = [task for task in waiting if task.done()]
    assert len(refused) == 36  # no more than 64 wait
    assert all(isinstance(task.exception(), UnavailableError) for task in refused)
    released.set()
    results = await asyncio.gather(*waiting, return_exceptions=True)
    assert {type(result) for result in results} == {UnavailableError, UnauthenticatedError}
    assert world.issuer.reads == 2


async def test_while_the_issuer_is_away_its_earlier_keys_count_and_the_problem_is_reported() -> None:
    world = OidcWorld()
    await world.authenticator.refresh()
    await world.verify(world.token())
    world.issuer.answers[world.issuer.place] = OSError("the issuer is away")
    for _ in range(3):
        world.advance(301)
        await refresh(world)
        assert await world.verify(world.token())
    with pytest.raises(OSError, match="is away"):
        await world.authenticator.refresh()
    world.issuer.answers[world.issuer.place] = {"issuer": ISSUER, "jwks_uri": world.issuer.keys_url}
    world.advance(31)
    await refresh(world)
    await world.authenticator.refresh()


async def test_without_any_keys_a_call_may_be_retried() -> None:
    world = OidcWorld()
    world.issuer.answers[world.issuer.place] = OSError("the issuer is away")
    for _ in range(5):
        with pytest.raises(UnavailableError):
            await world.verify(world.token())
    assert world.issuer.reads == 1
    world.issuer.answers[world.issuer.place] = {"issuer": ISSUER, "jwks_uri": world.issuer.keys_url}
    world.advance(2)
    assert await world.verify(world.token())


@pytest.mark.parametrize(
    ("place", "answer", "problem"),
    [
        ("place", {"issuer": "https://other.example.com", "jwks_uri": f"{ISSUER}/keys"}, "its issuer is not"),
        ("place", {"issuer": ISSUER}, "jwks_uri"),
        ("place", {"issuer": ISSUER, "jwks_uri": "http://login.example.com/keys"}, "https"),
        ("place", {"issuer": ISSUER, "jwks_uri": "http://127.0.0.1/keys"}, "https"),
        ("place", {"issuer": ISSUER, "jwks_uri": "file:///etc/passwd"}, "host"),
        ("place", {"issuer": ISSUER, "jwks_uri": ["x"]}, "jwks_uri"),
        ("place", b"<html>", "not valid"),
        ("place", b"[]", "no JSON object"),
        ("place", b'{"issuer": 1, "issuer": 2}', "twice"),
        ("keys_url", {}, "keys"),
        ("keys_url", {"keys": {}}, "keys"),
        ("keys_url", {"keys": [{}] * 101}, "keys"),
        ("keys_url", b"[" * 200_000, "deeply"),
        ("keys_url", TimeoutError(), "does not answer"),
    ],
)
async def test_a_wrong_answer_of_the_issuer_changes_nothing_and_is_reported(
    place: str, answer: Any, problem: str
) -> None:
    world = OidcWorld()
    await world.verify(world.token())
    world.issuer.answers[getattr(world.issuer, place)] = answer
    world.advance(301)
    await refresh(world)
    with pytest.raises(OSError, match=problem):
        await world.authenticator.refresh()
    assert await world.verify(world.token())


@pytest.mark.parametrize(
    "entry",
    [
        OctKey.import_key(b"a secret of thirty-two characters").as_dict(),
        RSA.as_dict(private=True),
        {**RSA.as_dict(private=False), "use": "enc"},
        {**RSA.as_dict(private=False), "key_ops": ["encrypt"]},
        {**RSA.as_dict(private=False), "alg": "RSA-OAEP"},
        {**RSA.as_dict(private=False), "alg": "HS256"},
        {**EC.as_dict(private=False), "x": "AAAA"},
        {**ECKey.generate_key("P-521", private=False).as_dict(), "kid": "rsa"},
        {"kty": "RSA"},
        {"kty": "RSA", "n": 7, "e": "AQAB"},
        {"kty": ["RSA"]},
        {"kty": "unknown"},
        "text",
        None,
    ],
)
async def test_a_key_that_may_not_sign_is_left_out_and_counted(entry: Any) -> None:
    keys = signatures.PublicKeys({"keys": [entry, ED.as_dict(private=False)]})
    assert keys.left_out == 1
    world = OidcWorld()
    world.issuer.answers[world.issuer.keys_url] = {"keys": [entry]}
    with pytest.raises(UnauthenticatedError):
        await world.verify(world.token())


@pytest.mark.filterwarnings("ignore:Key size should be")
def test_a_short_rsa_key_is_left_out() -> None:
    assert signatures.PublicKeys(public(RSAKey.generate_key(1024, private=True))).left_out == 1


async def test_a_token_without_a_key_id_needs_the_only_key_of_its_algorithm() -> None:
    world = OidcWorld()
    token = sign(world.claims(), header={"alg": "RS256"})
    assert await world.verify(token)
    world.issuer.answers[world.issuer.keys_url] = public(RSA, NEW)
    world.advance(301)
    await refresh(world)
    with pytest.raises(UnauthenticatedError):
        await world.verify(token)


async def test_a_token_that_was_verified_ends_with_its_time() -> None:
    world = OidcWorld()
    token = world.token()
    assert await world.verify(token)
    world.advance(299 + 60)
    assert await world.verify(token)
    world.advance(1)
    with pytest.raises(UnauthenticatedError, match="expired"):
        await world.verify(token)


async def test_a_token_that_was_verified_ends_with_its_key() -> None:
    world = OidcWorld()
    token = world.token(exp=world.now + 10_000)
    assert await world.verify(token)
    world.issuer.answers[world.issuer.keys_url] = public(NEW)
    world.advance(301)
    await refresh(world)
    with pytest.raises(UnauthenticatedError):
        await world.verify(token)


async def test_a_token_is_verified_once_and_no_more_than_so_many_are_remembered(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    world = OidcWorld(maximum_remembered=3)
    verified: list[str] = []
    is_signed = signatures.is_signed

    def count(token: signatures.Token, key: Key) -> bool:
        verified.append(token.claims["sub"])
        return is_signed(token, key)

    monkeypatch.setattr("servicekit.oidc.verifier.is_signed", count)
    tokens = {name: world.token(sub=name) for name in "abcd"}
    for name in "abcabcadadbb":
        assert (await world.verify(tokens[name])).actor == name
    assert verified == ["a", "b", "c", "d", "b"]
    assert len(world.verifier._remembered) == 3
    assert not any(token.encode() in repr(world.verifier._remembered).encode() for token in tokens.values())


async def test_two_issuers_are_asked_apart() -> None:
    other = FakeIssuer("https://other.example.com")
    other.answers[other.place] = OSError("it is away")
    world = OidcWorld(FakeIssuer(), other, oidc_tenants={ISSUER: ("acme",), other.url: ("rival",)})
    assert await world.verify(world.token())
    with pytest.raises(UnavailableError, match="other"):
        await world.verify(world.token(iss=other.url, tenant="rival"))
    assert await world.verify(world.token())


async def refresh(world: OidcWorld) -> None:
    """Let the keys be read whose time has come."""
    world.verifier.refresh()
    for issuer in world.verifier._issuers.values():
        if issuer._reading is not None:
            await issuer._reading
