"""An OpenID Connect issuer in the test's own process, and tokens of every form, good and forged."""

from __future__ import annotations

import asyncio
import base64
import hmac
import json
from collections.abc import Mapping
from typing import Any

from joserfc.jwk import ECKey, Key, OKPKey, RSAKey
from joserfc.jws import JWSRegistry

from servicekit.auth import OidcAuthenticator
from servicekit.oidc.issuers import Issuer
from servicekit.oidc.rules import Rules
from servicekit.oidc.verifier import Caller, Verifier
from servicekit.settings import ServiceSettings
from support.clock import FakeClock
from support.http_faults import read_request
from support.listener import Listener

ISSUER = "https://login.example.com"
KEYS_URL = f"{ISSUER}/keys"
ROLES = {"optaic-users": "researcher", "optaic-admins": "admin"}
RSA = RSAKey.generate_key(2048, parameters={"kid": "rsa"}, private=True)
EC = ECKey.generate_key("P-256", parameters={"kid": "ec"}, private=True)
ED = OKPKey.generate_key("Ed25519", parameters={"kid": "ed"}, private=True)
STRANGER = RSAKey.generate_key(2048, parameters={"kid": "rsa"}, private=True)


def encode(content: bytes | Mapping[str, Any]) -> str:
    """Return base64url of bytes, or of an object as JSON."""
    data = content if isinstance(content, bytes) else json.dumps(content).encode()
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def sign(
    claims: bytes | Mapping[str, Any],
    key: Key = RSA,
    algorithm: str = "RS256",
    header: bytes | Mapping[str, Any] | None = None,
) -> str:
    """Return a token with exactly this header and these claims, whatever they are."""
    if header is None:
        header = {"alg": algorithm, "typ": "JWT", "kid": key.kid}
    signed = f"{encode(header)}.{encode(claims)}"
    return f"{signed}.{encode(JWSRegistry.algorithms[algorithm].sign(signed.encode(), key))}"


def public(*keys: Key, **values: Any) -> dict[str, Any]:
    """Return a key set as an issuer publishes it."""
    return {"keys": [{**key.as_dict(private=False), "use": "sig", **values} for key in keys]}


def sign_with_mac(claims: Mapping[str, Any], secret: bytes, digest: str, header: Mapping[str, Any]) -> str:
    """Return a token whose signature is a MAC; by hand, because the library refuses a public key as a secret."""
    signed = f"{encode(header)}.{encode(claims)}"
    return f"{signed}.{encode(hmac.digest(secret, signed.encode(), digest))}"


class FakeIssuer:
    """Answers what an issuer answers; `answers` may be replaced, and an answer that is an error is raised."""

    def __init__(self, url: str = ISSUER) -> None:
        self.url = url
        self.place = f"{url}/.well-known/openid-configuration"
        self.keys_url = f"{url}/keys"
        self.answers: dict[str, Any] = {
            self.place: {"issuer": url, "jwks_uri": self.keys_url},
            self.keys_url: public(RSA, EC, ED),
        }
        self.asked: list[str] = []

    async def fetch(self, url: str) -> bytes:
        """Return the answer for a URL."""
        self.asked.append(url)
        answer = self.answers.get(url, OSError("there is no such page"))
        if isinstance(answer, BaseException):
            raise answer
        return answer if isinstance(answer, bytes) else json.dumps(answer).encode()

    @property
    def reads(self) -> int:
        """How often it was asked for its configuration."""
        return self.asked.count(self.place)


class ServedIssuer(Listener):
    """A `FakeIssuer` that answers over HTTP, on a free port of this machine."""

    @property
    def issuer(self) -> FakeIssuer:
        """What it answers."""
        return FakeIssuer(f"http://127.0.0.1:{self.port}")

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        _, path, _ = (await read_request(reader)).split(b" ", 2)
        issuer = self.issuer
        body = await issuer.fetch(f"{issuer.url}{path.decode()}")
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n%s" % (len(body), body))
        await writer.drain()


class OidcWorld:
    """A verifier, the clocks that it goes by, and its issuers."""

    def __init__(self, *issuers: FakeIssuer, maximum_remembered: int = 100, **values: Any) -> None:
        self.issuers = issuers or (FakeIssuer(),)
        self.clock = FakeClock()
        self.seconds = 0.0
        self.settings = oidc_settings(
            **{"oidc_issuers": tuple(issuer.url for issuer in self.issuers), **values}
        )
        known = {
            each.url: Issuer(each.url, refresh_seconds=300, fetch=each.fetch, monotonic=lambda: self.seconds)
            for each in self.issuers
        }
        self.verifier = Verifier(Rules.of(self.settings), known, self.clock, maximum_remembered)
        self.authenticator = OidcAuthenticator(self.settings, self.verifier)

    @property
    def issuer(self) -> FakeIssuer:
        """The only issuer, or the first."""
        return self.issuers[0]

    @property
    def now(self) -> float:
        """The present instant, in seconds since 1970."""
        return self.clock.now().timestamp()

    def claims(self, **changes: Any) -> dict[str, Any]:
        """Return claims that are accepted, with changes; a claim that becomes `...` is left out."""
        claims = {
            "iss": self.issuer.url,
            "aud": "optaic",
            "sub": "ada",
            "exp": self.now + 300,
            "iat": self.now,
            "tenant": "acme",
            "roles": ["optaic-users"],
            **changes,
        }
        return {name: value for name, value in claims.items() if value is not ...}

    def token(self, **changes: Any) -> str:
        """Return a token with these claims."""
        return sign(self.claims(**changes))

    async def verify(self, token: str) -> Caller:
        """Return for whom a token speaks."""
        return await self.verifier.verify(token)

    def advance(self, seconds: float) -> None:
        """Let time pass on both clocks."""
        self.clock.advance(seconds)
        self.seconds += seconds


def oidc_settings(**values: Any) -> ServiceSettings:
    """Return settings of a service that accepts the tokens of the issuer."""
    defaults: dict[str, Any] = {f"database{login}_url": "unused" for login in ("", "_owner", "_infra")}
    defaults |= {
        "auth": "oidc",
        "oidc_issuers": (ISSUER,),
        "oidc_audiences": ("optaic",),
        "oidc_roles": ROLES,
    }
    return ServiceSettings(**{**defaults, **values})
