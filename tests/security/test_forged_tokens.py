"""No token is accepted that its issuer did not sign for us, now, and for a tenant that it may name."""

from __future__ import annotations

import base64
import json
import string
from collections.abc import Callable

import pytest

from servicekit.auth import Identity
from servicekit.errors import PermissionDeniedError, UnauthenticatedError
from support.oidc import EC, ED, ISSUER, RSA, STRANGER, FakeIssuer, OidcWorld, encode, sign, sign_with_mac

ELSEWHERE = "https://elsewhere.example.com"
PEM = RSA.as_pem(private=False)
_DIGITS = string.ascii_uppercase + string.ascii_lowercase + string.digits + "-_"

Forge = Callable[[OidcWorld], str]


def unsigned(algorithm: str) -> Forge:
    def forge(world: OidcWorld) -> str:
        return f"{encode({'alg': algorithm, 'kid': 'rsa'})}.{encode(world.claims())}."

    return forge


def with_signature(signature: str, algorithm: str = "none") -> Forge:
    return lambda world: f"{encode({'alg': algorithm, 'kid': 'rsa'})}.{encode(world.claims())}.{signature}"


def mac(secret: bytes, algorithm: str = "HS256", **header: object) -> Forge:
    """Sign with a MAC whose secret is something that everybody knows."""
    return lambda world: sign_with_mac(
        world.claims(),
        secret,
        algorithm.replace("HS", "sha"),
        {"alg": algorithm, "typ": "JWT", "kid": "rsa", **header},
    )


def own_key(**header: object) -> Forge:
    """Sign with the attacker's key, and point to it in the header."""
    return lambda world: sign(
        world.claims(), STRANGER, header={"alg": "RS256", "typ": "JWT", "kid": "rsa", **header}
    )


def good_key(**header: object) -> Forge:
    """Sign with the issuer's key under a header that must not count."""
    return lambda world: sign(world.claims(), header={"alg": "RS256", "typ": "JWT", "kid": "rsa", **header})


def claim(**changes: object) -> Forge:
    return lambda world: world.token(**changes)


def at(**offsets: float) -> Forge:
    """Set claims to instants, in seconds from now."""
    return lambda world: world.token(**{name: world.now + offset for name, offset in offsets.items()})


def text(change: Callable[[str], str]) -> Forge:
    """Change the JSON of the claims before it is signed."""
    return lambda world: sign(change(json.dumps(world.claims())).encode())


def parts(change: Callable[[list[str]], str]) -> Forge:
    """Change a good token."""
    return lambda world: change(world.token().split("."))


def _next_digit(part: str) -> str:
    return part[:-1] + _DIGITS[_DIGITS.index(part[-1]) + 1]


def _flip(part: str, at: int) -> str:
    content = bytearray(base64.urlsafe_b64decode(part + "=" * (-len(part) % 4)))
    content[at] ^= 1
    return encode(bytes(content))


FORGED: dict[str, Forge] = {
    "algorithm none, no signature": unsigned("none"),
    "algorithm None": unsigned("None"),
    "algorithm nOnE with a signature": with_signature("AAAA", "nOnE"),
    "algorithm none with a signature": with_signature("AAAA"),
    "algorithm empty": with_signature("AAAA", ""),
    "no algorithm": lambda world: sign(world.claims(), header={"kid": "rsa"}),
    "algorithm a list": lambda world: sign(world.claims(), header={"alg": ["RS256"], "kid": "rsa"}),
    "HS256 with the public key as PEM": mac(PEM),
    "HS256 with the public key as PEM without its last line end": mac(PEM.strip()),
    "HS256 with the public key as JSON": mac(json.dumps(RSA.as_dict(private=False)).encode()),
    "HS384 with the public key": mac(PEM, "HS384"),
    "HS512 with the public key": mac(PEM, "HS512"),
    "HS256 with the modulus": mac(str(RSA.as_dict(private=False)["n"]).encode()),
    "RS256 in the header over a MAC": mac(PEM, alg="RS256"),
    "ES256 with the RSA key's id": lambda world: sign(
        world.claims(), EC, "ES256", {"alg": "ES256", "kid": "rsa"}
    ),
    "RS256 with the EC key's id": good_key(kid="ec"),
    "EdDSA with the EC key's id": lambda world: sign(
        world.claims(), ED, "EdDSA", {"alg": "EdDSA", "kid": "ec"}
    ),
    "ES256 with r and s of zero": lambda world: (
        f"{encode({'alg': 'ES256', 'kid': 'ec'})}.{encode(world.claims())}.{encode(bytes(64))}"
    ),
    "RS384, which no setting permits": lambda world: sign(world.claims(), algorithm="RS384"),
    "the attacker's key under the issuer's key id": own_key(),
    "the attacker's key in jwk": own_key(jwk=STRANGER.as_dict(private=False)),
    "the attacker's key at jku": own_key(jku=f"{ELSEWHERE}/keys"),
    "the attacker's key at jku below the issuer": own_key(jku=f"{ISSUER}/keys/../../evil"),
    "the attacker's certificate at x5u": own_key(x5u=f"{ELSEWHERE}/certificate"),
    "the attacker's certificate in x5c": own_key(x5c=["MIIB"]),
    "jwk beside the issuer's signature": good_key(jwk=STRANGER.as_dict(private=False)),
    "jku beside the issuer's signature": good_key(jku=f"{ELSEWHERE}/keys"),
    "key id a path": own_key(kid="../../../../dev/null"),
    "key id a path, signed with nothing": mac(b"\0", kid="../../../../dev/null"),
    "key id a URL": own_key(kid=f"{ELSEWHERE}/keys"),
    "key id SQL": own_key(kid="x' union select 'key"),
    "key id a command": own_key(kid="rsa; id"),
    "key id empty": own_key(kid=""),
    "key id a number": own_key(kid=7),
    "key id null": good_key(kid=None),
    "key id a list": good_key(kid=["rsa"]),
    "key id long": own_key(kid="a" * 3000),
    "no key id, the attacker's key": lambda world: sign(world.claims(), STRANGER, header={"alg": "RS256"}),
    "critical header": good_key(crit=["exp"], exp=1),
    "unencoded payload": good_key(b64=False, crit=["b64"]),
    "compressed": good_key(zip="DEF"),
    "a token inside a token": good_key(cty="JWT"),
    "type of a logout token": good_key(typ="logout+jwt"),
    "type of a DPoP proof": good_key(typ="dpop+jwt"),
    "type a list": good_key(typ=["JWT"]),
    "type null": good_key(typ=None),
    "algorithm twice": lambda world: sign(world.claims(), header=b'{"alg":"none","alg":"RS256","kid":"rsa"}'),
    "issuer unknown": claim(iss=ELSEWHERE),
    "issuer with a slash": claim(iss=f"{ISSUER}/"),
    "issuer in upper case": claim(iss=ISSUER.upper()),
    "issuer missing": claim(iss=...),
    "issuer null": claim(iss=None),
    "issuer a list": claim(iss=[ISSUER]),
    "issuer a suffix": claim(iss=f"{ISSUER}.evil.example.com"),
    "audience another": claim(aud="console"),
    "audience missing": claim(aud=...),
    "audience empty": claim(aud=[]),
    "audience a part": claim(aud="optaic-other"),
    "audience an object": claim(aud={"optaic": True}),
    "audience with a number": claim(aud=["optaic", 7]),
    "tenant missing": claim(tenant=...),
    "tenant null": claim(tenant=None),
    "tenant empty": claim(tenant=""),
    "tenant a list": claim(tenant=["acme", "rival"]),
    "tenant with a wildcard": claim(tenant="*"),
    "tenant a subject": claim(tenant="acme.>"),
    "tenant with a line end": claim(tenant="acme\n"),
    "tenant SQL": claim(tenant="acme' or '1'='1"),
    "tenant in upper case": claim(tenant="ACME"),
    "tenant twice": text(lambda claims: claims.replace('"tenant"', '"tenant": "rival", "tenant"')),
    "tenant twice, once escaped": text(
        lambda claims: claims.replace('"tenant"', '"\\u0074enant": "rival", "tenant"')
    ),
    "issuer twice": text(lambda claims: claims.replace('"iss"', f'"iss": "{ELSEWHERE}", "iss"')),
    "expired": at(exp=-61),
    "expired long ago": claim(exp=1),
    "expiry missing": claim(exp=...),
    "expiry null": claim(exp=None),
    "expiry a text": claim(exp="9999999999"),
    "expiry true": claim(exp=True),
    "expiry infinite": text(lambda claims: claims.replace('"exp": ', '"exp": 1e999, "was": ')),
    "expiry Infinity": claim(exp=float("inf")),
    "expiry NaN": claim(exp=float("nan")),
    "expiry of 5,000 digits": text(lambda claims: claims.replace('"exp": ', f'"exp": {"9" * 5000}, "was": ')),
    "expiry of 400 digits": text(lambda claims: claims.replace('"exp": ', f'"exp": {"9" * 400}, "was": ')),
    "not valid yet": at(nbf=61),
    "not valid yet in the year 9999": at(nbf=2.5e11, exp=2.6e11),
    "not before null": claim(nbf=None),
    "issued in the future": at(iat=61),
    "actor missing": claim(sub=...),
    "actor empty": claim(sub=""),
    "actor a number": claim(sub=7),
    "actor with a line end": claim(sub="ada\nlevel=error"),
    "actor long": claim(sub="a" * 201),
    "roles a number": claim(roles=7),
    "roles an object": claim(roles={"optaic-admins": True}),
    "roles with a number": claim(roles=["optaic-admins", 7]),
    "claims a list": lambda _: sign(b'["tenant", "acme"]'),
    "claims no JSON": lambda _: sign(b"tenant=acme"),
    "claims no UTF-8": lambda _: sign(b'{"tenant": "\xff"}'),
    "claims nested deeply": lambda _: sign(b'{"a":' * 900 + b"1" + b"}" * 900),
    "claims of brackets": lambda _: sign(b"[" * 5500),
    "longer than 8 kB": claim(more="a" * 8000),
    "one part": parts(lambda each: each[1]),
    "two parts": parts(lambda each: ".".join(each[:2])),
    "four parts": parts(lambda each: ".".join([*each, each[2]])),
    "five parts, as if encrypted": parts(lambda each: ".".join([each[0], "", *each[1:], ""])),
    "no header": parts(lambda each: f".{each[1]}.{each[2]}"),
    "no claims": parts(lambda each: f"{each[0]}..{each[2]}"),
    "no signature": parts(lambda each: f"{each[0]}.{each[1]}."),
    "claims changed after signing": lambda world: ".".join(
        [world.token().split(".")[0], encode(world.claims(tenant="rival")), world.token().split(".")[2]]
    ),
    "header changed after signing": parts(
        lambda each: f"{encode({'alg': 'RS256', 'kid': 'rsa'})}.{each[1]}.{each[2]}"
    ),
    "signature with another first bit": parts(lambda each: f"{each[0]}.{each[1]}.{_flip(each[2], 0)}"),
    "signature with another last bit": parts(lambda each: f"{each[0]}.{each[1]}.{_flip(each[2], -1)}"),
    "signature shorter": parts(lambda each: f"{each[0]}.{each[1]}.{encode(b'x' * 255)}"),
    "signature with padding": parts(lambda each: f"{'.'.join(each)}=="),
    "signature with unused bits": parts(lambda each: f"{each[0]}.{each[1]}.{_next_digit(each[2])}"),
    "signature with a line end": parts(lambda each: f"{each[0]}.{each[1]}.{each[2][:9]}\n{each[2][9:]}"),
    "standard base64": parts(lambda each: f"{each[0]}.{each[1]}.{'+/' * 171}"),
    "JSON instead of the compact form": lambda world: json.dumps(
        {"protected": world.token().split(".")[0], "payload": "e30", "signature": "AAAA"}
    ),
    "not ASCII": parts(lambda each: f"{each[0]}é.{each[1]}.{each[2]}"),
}


def bearer(token: str) -> dict[str, str]:
    return {"authorization": f"Bearer {token}", "optaic-tenant": "rival", "optaic-actor": "root"}


@pytest.mark.parametrize("forge", FORGED.values(), ids=FORGED)
async def test_a_forged_token_is_refused(forge: Forge) -> None:
    world = OidcWorld()
    await world.authenticator.authenticate(bearer(world.token()), "")
    world.advance(100)  # an unknown key may be looked for again
    token = forge(world)
    for _ in range(2):
        with pytest.raises(UnauthenticatedError) as refused:
            await world.authenticator.authenticate(bearer(token), "ipv4:127.0.0.1:1")
    assert set(world.issuer.asked) == {world.issuer.place, world.issuer.keys_url}
    assert token not in str(refused.value)


async def test_a_valid_token_gives_tenant_actor_and_roles() -> None:
    world = OidcWorld()
    ada = Identity("acme", "ada", frozenset({"researcher"}))
    for _ in range(2):
        assert await world.authenticator.authenticate(bearer(world.token()), "") == ada


@pytest.mark.parametrize(
    "header", [{}, {"authorization": "Bearer "}, {"authorization": "Bearer development"}]
)
async def test_nobody_is_admitted_without_a_token_even_on_this_machine(header: dict[str, str]) -> None:
    with pytest.raises(UnauthenticatedError):
        await OidcWorld().authenticator.authenticate(header, "ipv4:127.0.0.1:1")


async def test_one_issuer_never_speaks_for_the_tenants_or_with_the_keys_of_another() -> None:
    other = FakeIssuer(ELSEWHERE)
    other.answers[other.keys_url] = {"keys": [STRANGER.as_dict(private=False)]}
    world = OidcWorld(FakeIssuer(), other, oidc_tenants={ISSUER: ("acme",), ELSEWHERE: ("rival",)})
    assert (await world.verify(sign(world.claims()))).tenant_id == "acme"
    assert (
        await world.verify(sign(world.claims(iss=ELSEWHERE, tenant="rival"), STRANGER))
    ).tenant_id == "rival"
    for token in (
        sign(world.claims(tenant="rival")),
        sign(world.claims(iss=ELSEWHERE), STRANGER),
        sign(world.claims(), STRANGER),
        sign(world.claims(iss=ELSEWHERE, tenant="rival")),
    ):
        with pytest.raises(UnauthenticatedError):
            await world.verify(token)


@pytest.mark.parametrize(
    "given", [["service"], ["executor"], ["admin"], ["root", "optaic"], [], "admin service"]
)
async def test_a_claim_gives_no_role_that_the_setting_does_not_give(given: object) -> None:
    world = OidcWorld()
    assert (await world.verify(world.token(roles=given))).roles == frozenset()


@pytest.mark.parametrize("given", [..., None])
async def test_a_token_without_roles_is_refused_and_the_claim_is_named(given: object) -> None:
    world = OidcWorld(oidc_roles_claim="groups")
    with pytest.raises(PermissionDeniedError, match="groups"):
        await world.verify(world.token(groups=given))
