"""Find the caller that a request's token belongs to; one class for each value of OPTAIC_AUTH. What a role permits, access.py says."""

from __future__ import annotations

import hmac
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from servicekit.access import ADMIN, EXECUTOR, SERVICE
from servicekit.certificates import holder_of
from servicekit.clock import Clock, SystemClock
from servicekit.context import is_tenant_id
from servicekit.errors import InvalidArgumentError, UnauthenticatedError
from servicekit.failed_tokens import FailedTokens
from servicekit.settings import ServiceSettings
from servicekit.token_files import TokenFiles

if TYPE_CHECKING:
    from servicekit.oidc import Verifier

AUTHORIZATION_KEY = "authorization"
TENANT_KEY = "optaic-tenant"
ACTOR_KEY = "optaic-actor"
DEVELOPMENT_TOKEN = "development"  # noqa: S105 - public by design, accepted from loopback only
_LOOPBACK_PEERS = ("ipv4:127.", "ipv6:[::1]", "ipv6:%5B::1%5D", "unix:")
_MAXIMUM_ACTOR = 200


@dataclass(frozen=True)
class Identity:
    """A verified caller."""

    tenant_id: str
    actor: str
    roles: frozenset[str] = frozenset()

    @property
    def is_service(self) -> bool:
        """Return whether it is another service of this installation, which acts for the tenant that it names."""
        return SERVICE in self.roles


_DEVELOPER = Identity("default", "developer", frozenset({ADMIN}))


class Authenticator(Protocol):
    """Verify the token of a call; each way to authenticate is one class."""

    @property
    def is_open(self) -> bool:
        """Return whether health and reflection answer callers without a token."""
        ...

    async def authenticate(
        self, metadata: Mapping[str, str], peer: str, certificate: Sequence[str] = (), /
    ) -> Identity:
        """Return the identity of a call; `certificate` has the URIs of the client's certificate; called again for an open stream, to see whether it still holds.

        Raises:
            UnauthenticatedError: There is no valid token.
            PermissionDeniedError: The token is valid and says nothing of roles.
            InvalidArgumentError: A service does not name the tenant for which it acts.
            UnavailableError: Nobody can say now whether the token is valid.
            ResourceExhaustedError: RATE_LIMITED: too many tokens that are not valid come from this address.
        """
        ...

    async def refresh(self) -> None:
        """Read again what tokens are verified with, if it has changed; the server calls it every second.

        Raises:
            ValueError: It is not valid; what was read before stays in force.
            OSError: It cannot be read; what was read before stays in force.
        """
        ...


def make_authenticator(settings: ServiceSettings, clock: Clock | None = None) -> Authenticator:
    """Return the authenticator that the settings name.

    Raises:
        ValueError: A file of tokens or a setting is not valid, or is needed and not there.
        OSError: A file of tokens cannot be read.
    """
    inner = _make_token_authenticator(settings, clock)
    return inner if settings.tls_client_ca is None else CertificateAuthenticator(inner)


def _make_token_authenticator(settings: ServiceSettings, clock: Clock | None) -> Authenticator:
    if settings.auth == "tokens":
        if settings.tokens_file is None:
            raise ValueError("OPTAIC_AUTH=tokens needs OPTAIC_TOKENS_FILE")
        return TokensAuthenticator(settings)
    if settings.auth == "oidc":
        from servicekit.oidc import make_verifier  # noqa: PLC0415 - only this mode loads what verifies signatures

        return OidcAuthenticator(settings, make_verifier(settings, clock or SystemClock()))
    return DevelopmentAuthenticator(settings)


class TokensAuthenticator:
    """Accept the tokens of the files, and the service token."""

    is_open = False

    def __init__(self, settings: ServiceSettings) -> None:
        self._service_token = settings.service_token.encode()
        self._files = TokenFiles(
            tokens_file=settings.tokens_file, executor_tokens_file=settings.executor_tokens_file
        )

    async def authenticate(
        self, metadata: Mapping[str, str], peer: str, _certificate: Sequence[str] = (), /
    ) -> Identity:
        """Return the identity of a call; see Authenticator."""
        identity = self._find(bearer(metadata), metadata, peer)
        if identity is None:
            raise unauthenticated()
        return identity

    async def refresh(self) -> None:
        """Read the files again if they have changed; see Authenticator."""
        await self._files.refresh()

    def _find(self, token: str, metadata: Mapping[str, str], _peer: str) -> Identity | None:
        if self._service_token and hmac.compare_digest(token.encode(), self._service_token):
            return service_identity(metadata)
        entry = self._files.find(token) if token else None
        return Identity(entry.tenant_id, entry.actor, entry.roles) if entry is not None else None


class DevelopmentAuthenticator(TokensAuthenticator):
    """Accept the same, and from this machine the token `development`, or none, as the administrator of `default`."""

    is_open = True

    def _find(self, token: str, metadata: Mapping[str, str], peer: str) -> Identity | None:
        if token in ("", DEVELOPMENT_TOKEN):
            return _DEVELOPER if peer.startswith(_LOOPBACK_PEERS) else None
        return super()._find(token, metadata, peer)


class OidcAuthenticator(TokensAuthenticator):
    """Accept the same, and the tokens that an OpenID Connect issuer has signed."""

    def __init__(self, settings: ServiceSettings, verifier: Verifier) -> None:
        super().__init__(settings)
        self._verifier = verifier
        self._failed = FailedTokens()

    async def authenticate(
        self, metadata: Mapping[str, str], peer: str, _certificate: Sequence[str] = (), /
    ) -> Identity:
        """Return the identity of a call; see Authenticator."""
        token = bearer(metadata)
        if (identity := self._find(token, metadata, peer)) is not None:
            return identity
        if not token:
            raise unauthenticated()
        if (caller := self._verifier.recall(token)) is None:
            self._failed.check(peer)
            try:
                caller = await self._verifier.verify(token)
            except UnauthenticatedError:
                self._failed.count(peer)
                raise
        return Identity(caller.tenant_id, caller.actor, caller.roles)

    async def refresh(self) -> None:
        """Read the files again if they have changed, and begin to read keys whose time has come; see Authenticator."""
        self._verifier.refresh()
        await super().refresh()
        if self._verifier.problem:
            raise OSError(self._verifier.problem)


class CertificateAuthenticator:
    """Accept services and workers by their certificates, and the tokens that `inner` accepts.

    A token never widens what a certificate says: the service token counts only from a service, and that of a tenant's
    executor only from a worker of this tenant.
    """

    def __init__(self, inner: Authenticator) -> None:
        self._inner = inner
        self.is_open = inner.is_open

    async def authenticate(
        self, metadata: Mapping[str, str], peer: str, certificate: Sequence[str] = (), /
    ) -> Identity:
        """Return the identity of a call; see Authenticator."""
        is_service, tenant = holder_of(certificate)
        if not bearer(metadata):
            if is_service:
                return service_identity(metadata)
            if tenant:
                return Identity(tenant, "worker", frozenset({EXECUTOR}))
        identity = await self._inner.authenticate(metadata, peer, certificate)
        if SERVICE in identity.roles and not is_service:
            raise _not_the_caller("the service token counts only with the certificate of a service")
        if EXECUTOR in identity.roles and tenant != identity.tenant_id:
            raise _not_the_caller(
                "the token of an executor counts only with the certificate of a worker of its tenant"
            )
        if tenant and tenant != identity.tenant_id:
            raise _not_the_caller("the certificate belongs to a worker of another tenant than the token")
        return identity

    async def refresh(self) -> None:
        """Read again what tokens are verified with; see Authenticator."""
        await self._inner.refresh()


def service_identity(metadata: Mapping[str, str]) -> Identity:
    """Return the identity of a service, for the tenant and the actor that it names.

    Raises:
        InvalidArgumentError: It names no tenant.
    """
    tenant_id = metadata.get(TENANT_KEY, "")
    if not is_tenant_id(tenant_id):
        raise InvalidArgumentError("TENANT_REQUIRED", f"metadata {TENANT_KEY} must name the tenant")
    return Identity(tenant_id, metadata.get(ACTOR_KEY, "service")[:_MAXIMUM_ACTOR], frozenset({SERVICE}))


def bearer(metadata: Mapping[str, str]) -> str:
    """Return the token of a call; empty if there is none.

    Raises:
        UnauthenticatedError: The metadata has another form.
    """
    header = metadata.get(AUTHORIZATION_KEY, "")
    scheme, _, token = header.partition(" ")
    if header and scheme.lower() != "bearer":
        raise UnauthenticatedError("UNAUTHENTICATED", "the metadata authorization must be `Bearer <token>`")
    return token.strip()


def unauthenticated() -> UnauthenticatedError:
    """Return UNAUTHENTICATED: it does not say whether the token was ever valid."""
    return UnauthenticatedError(
        "UNAUTHENTICATED", "no valid token was sent; send the metadata `authorization: Bearer <token>`"
    )


def _not_the_caller(problem: str) -> UnauthenticatedError:
    return UnauthenticatedError("UNAUTHENTICATED", problem)
