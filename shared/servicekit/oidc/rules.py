"""Hold what the settings say about tokens of OpenID Connect: whose, for whom, and which claims count."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Self
from urllib.parse import urlsplit

from servicekit.access import ROLES
from servicekit.context import is_tenant_id
from servicekit.plaintext import is_local_host
from servicekit.settings import ServiceSettings


@dataclass(frozen=True)
class Rules:
    """Checked settings; `tenants` holds the tenants that an issuer may name, and nothing for an issuer that may name all."""

    issuers: tuple[str, ...]
    audiences: frozenset[str]
    tenants: Mapping[str, frozenset[str]]
    tenant_claim: str
    actor_claim: str
    roles_claim: str
    roles: Mapping[str, str]

    @classmethod
    def of(cls, settings: ServiceSettings) -> Self:
        """Return the rules of the settings.

        Raises:
            ValueError: A setting is needed and not set, or is not valid; the text names it.
        """
        _check(settings)
        return cls(
            issuers=settings.oidc_issuers,
            audiences=frozenset(settings.oidc_audiences),
            tenants={issuer: frozenset(tenants) for issuer, tenants in settings.oidc_tenants.items()},
            tenant_claim=settings.oidc_tenant_claim,
            actor_claim=settings.oidc_actor_claim,
            roles_claim=settings.oidc_roles_claim,
            roles=settings.oidc_roles,
        )


def is_loopback(url: str) -> bool:
    """Return whether the host of a URL is this machine."""
    return is_local_host(urlsplit(url).hostname or "")


def check_url(url: str, *, allow_http: bool) -> None:
    """Refuse a URL that is not https, or http on this machine where `allow_http`; the same for one with a password.

    Raises:
        ValueError: The URL is refused; the text does not repeat it.
    """
    try:
        parts = urlsplit(url)
        is_known = bool(parts.hostname) and (parts.port is None or parts.port > 0)
    except ValueError:
        is_known = False
    if not is_known or not url.isascii() or not url.isprintable():
        raise ValueError("it is no URL with a host")
    if parts.username is not None or parts.password is not None:
        raise ValueError("it holds a user or a password")
    if parts.scheme != "https" and not (allow_http and parts.scheme == "http" and is_loopback(url)):
        raise ValueError("it must begin with https:// (http:// is accepted on this machine only)")


def _check(settings: ServiceSettings) -> None:
    for name, value in (
        ("ISSUERS", settings.oidc_issuers),
        ("AUDIENCES", settings.oidc_audiences),
        ("ROLES", settings.oidc_roles),
    ):
        if not value or not all(value):
            raise ValueError(f"OPTAIC_AUTH=oidc needs OPTAIC_OIDC_{name}, without empty texts")
    for issuer in settings.oidc_issuers:
        try:
            check_url(issuer, allow_http=True)
            if "?" in issuer or "#" in issuer:
                raise ValueError("it holds a query or a fragment")  # noqa: TRY301 - told with the issuer, as the others
        except ValueError as error:
            raise ValueError(f"OPTAIC_OIDC_ISSUERS: {issuer!r} is not valid: {error}") from None
    if unknown := set(settings.oidc_roles.values()) - ROLES:
        raise ValueError(
            f"OPTAIC_OIDC_ROLES: {', '.join(sorted(unknown))} is not a role; the roles are: {', '.join(sorted(ROLES))}"
        )
    _check_tenants(settings)


def _check_tenants(settings: ServiceSettings) -> None:
    named = settings.oidc_tenants
    if unknown := set(named) - set(settings.oidc_issuers):
        raise ValueError(f"OPTAIC_OIDC_TENANTS: {min(unknown)!r} is not in OPTAIC_OIDC_ISSUERS")
    if (named or len(settings.oidc_issuers) > 1) and (missing := set(settings.oidc_issuers) - set(named)):
        raise ValueError(
            f"OPTAIC_OIDC_TENANTS must say which tenants {min(missing)!r} may name, because there are several issuers"
        )
    for issuer, tenants in named.items():
        if not tenants or not all(map(is_tenant_id, tenants)):
            raise ValueError(f"OPTAIC_OIDC_TENANTS: the list of {issuer!r} must hold ids of tenants")
