"""Verify a token and say for whom it speaks; remember for a while whose token was verified."""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from servicekit.clock import Clock
from servicekit.context import is_tenant_id
from servicekit.errors import PermissionDeniedError, UnauthenticatedError
from servicekit.oidc.issuers import Issuer
from servicekit.oidc.rules import Rules
from servicekit.oidc.signatures import PublicKeys, Token, is_signed, parse

LEEWAY_SECONDS = 60.0
_MAXIMUM_REMEMBERED = 10_000
_MAXIMUM_ACTOR = 200
_Numbers = int | float


@dataclass(frozen=True)
class Caller:
    """For whom a token speaks, and until when (in seconds since 1970)."""

    tenant_id: str
    actor: str
    roles: frozenset[str]
    expires: float


@dataclass(frozen=True)
class _Remembered:
    caller: Caller
    issuer: Issuer
    keys: PublicKeys


class Verifier:
    """A verifier of the tokens of the issuers.

    A verified token is remembered, by its digest, until it expires or the keys of its issuer are read again.
    """

    def __init__(
        self,
        rules: Rules,
        issuers: Mapping[str, Issuer],
        clock: Clock,
        maximum_remembered: int = _MAXIMUM_REMEMBERED,
    ) -> None:
        self._rules = rules
        self._issuers = issuers
        self._clock = clock
        self._maximum_remembered = maximum_remembered
        self._remembered: OrderedDict[bytes, _Remembered] = OrderedDict()

    @property
    def problem(self) -> str:
        """The faults of the keys of the issuers; empty if there are none."""
        return "; ".join(issuer.problem for issuer in self._issuers.values() if issuer.problem)

    def refresh(self) -> None:
        """Begin to read the keys of the issuers whose time has come."""
        for issuer in self._issuers.values():
            issuer.refresh()

    async def verify(self, text: str) -> Caller:
        """Return for whom a token speaks.

        Raises:
            UnauthenticatedError: The token is not valid; the error says why.
            PermissionDeniedError: The token has no claim of roles.
            UnavailableError: The keys of its issuer cannot be read now.
        """
        if (caller := self.recall(text)) is not None:
            return caller
        try:
            token = parse(text)
        except ValueError as error:
            raise _refusal(str(error)) from None
        # Until its signature is verified, a token only says which of the issuers that we know to ask.
        name = token.claims.get("iss")
        issuer = self._issuers.get(name) if isinstance(name, str) else None
        if issuer is None:
            raise _refusal("its claim `iss` names no issuer of OPTAIC_OIDC_ISSUERS", "iss")
        keys = await self._check_signature(token, issuer)
        caller = self._read_claims(token.claims, issuer.url)
        self._remember(_digest_of(text), _Remembered(caller, issuer, keys))
        return caller

    def recall(self, text: str) -> Caller | None:
        """Return for whom a token speaks if it was verified a while ago; otherwise None."""
        digest = _digest_of(text)
        known = self._remembered.get(digest)
        if known is None:
            return None
        if known.keys is not known.issuer.keys or self._now() >= known.caller.expires + LEEWAY_SECONDS:
            del self._remembered[digest]
            return None
        self._remembered.move_to_end(digest)
        return known.caller

    def _remember(self, digest: bytes, known: _Remembered) -> None:
        self._remembered[digest] = known
        while len(self._remembered) > self._maximum_remembered:
            self._remembered.popitem(last=False)

    async def _check_signature(self, token: Token, issuer: Issuer) -> PublicKeys:
        keys = issuer.keys
        key = keys.find(token) if keys is not None else None
        if key is None:
            await issuer.read_again()
            keys = issuer.keys
            if keys is None:
                raise issuer.unavailable()
            key = keys.find(token)
        if key is None:
            raise _refusal("its issuer has no such key")
        assert keys is not None
        if not is_signed(token, key):
            raise _refusal("its signature is wrong")
        return keys

    def _read_claims(self, claims: Mapping[str, Any], issuer: str) -> Caller:
        self._check_audience(claims.get("aud"))
        expires = self._check_times(claims)
        tenant = _find(claims, self._rules.tenant_claim)
        if not isinstance(tenant, str) or not is_tenant_id(tenant):
            raise _refusal(
                f"its claim `{self._rules.tenant_claim}` must be the id of a tenant", self._rules.tenant_claim
            )
        if issuer in self._rules.tenants and tenant not in self._rules.tenants[issuer]:
            raise _refusal("its issuer may not name this tenant", self._rules.tenant_claim)
        actor = _find(claims, self._rules.actor_claim)
        if not isinstance(actor, str) or not 0 < len(actor) <= _MAXIMUM_ACTOR or not actor.isprintable():
            raise _refusal(
                f"its claim `{self._rules.actor_claim}` must be a text of 1 to {_MAXIMUM_ACTOR} characters",
                self._rules.actor_claim,
            )
        return Caller(tenant, actor, self._read_roles(claims), expires)

    def _check_audience(self, audience: Any) -> None:
        named = [audience] if isinstance(audience, str) else audience
        if not isinstance(named, list) or not all(isinstance(each, str) for each in named):
            raise _refusal("its claim `aud` must be a text or a list of texts", "aud")
        if self._rules.audiences.isdisjoint(named):
            raise _refusal("its claim `aud` names no audience of OPTAIC_OIDC_AUDIENCES", "aud")

    def _check_times(self, claims: Mapping[str, Any]) -> float:
        now = self._now()
        expires = _time(claims, "exp")
        if expires is None:
            raise _refusal("its claim `exp` is missing", "exp")
        if now >= expires + LEEWAY_SECONDS:
            raise _refusal("it has expired: get a new one", "exp")
        for name in ("nbf", "iat"):
            begins = _time(claims, name)
            if begins is not None and now < begins - LEEWAY_SECONDS:
                raise _refusal(f"it is not valid yet: its claim `{name}` lies in the future", name)
        return expires

    def _read_roles(self, claims: Mapping[str, Any]) -> frozenset[str]:
        claim = self._rules.roles_claim
        given = _find(claims, claim)
        if given is None:
            raise PermissionDeniedError(
                "PERMISSION_DENIED",
                f"the token has no claim `{claim}`, so it gives no role; ask the administrator of the issuer for it",
                metadata={"claim": claim},
            )
        values = given.split() if isinstance(given, str) else given
        if not isinstance(values, list) or not all(isinstance(each, str) for each in values):
            raise _refusal(f"its claim `{claim}` must be a text or a list of texts", claim)
        return frozenset(self._rules.roles[value] for value in values if value in self._rules.roles)

    def _now(self) -> float:
        return self._clock.now().timestamp()


def _digest_of(text: str) -> bytes:
    return hashlib.sha256(text.encode()).digest()


def _find(claims: Mapping[str, Any], name: str) -> Any:
    """Return a claim; a name that begins with `/` is a JSON pointer, such as `/realm_access/roles`."""
    if not name.startswith("/"):
        return claims.get(name)
    value: Any = claims
    for part in name[1:].split("/"):
        if not isinstance(value, dict):
            return None
        value = value.get(part.replace("~1", "/").replace("~0", "~"))
    return value


def _time(claims: Mapping[str, Any], name: str) -> float | None:
    value = claims.get(name)
    if value is None and name not in claims:
        return None
    if isinstance(value, bool) or not isinstance(value, _Numbers) or not abs(value) < float("inf"):
        raise _refusal(f"its claim `{name}` must be a number of seconds", name)
    try:
        return float(value)
    except OverflowError:
        raise _refusal(f"its claim `{name}` must be a number of seconds", name) from None


def _refusal(problem: str, claim: str = "") -> UnauthenticatedError:
    return UnauthenticatedError(
        "UNAUTHENTICATED", f"the token is not accepted: {problem}", metadata={"claim": claim} if claim else {}
    )
