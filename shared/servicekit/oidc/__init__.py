"""Verify tokens that OpenID Connect issuers have signed, and read from their claims who calls."""

from servicekit.clock import Clock
from servicekit.oidc.issuers import Issuer
from servicekit.oidc.rules import Rules
from servicekit.oidc.verifier import Caller, Verifier
from servicekit.settings import ServiceSettings

__all__ = ["Caller", "Verifier", "make_verifier"]


def make_verifier(settings: ServiceSettings, clock: Clock) -> Verifier:
    """Return a verifier for the issuers of the settings; it reads their keys when they are needed.

    Raises:
        ValueError: A setting is needed and not set, or is not valid.
    """
    rules = Rules.of(settings)
    issuers = {url: Issuer(url, refresh_seconds=settings.oidc_refresh_seconds) for url in rules.issuers}
    return Verifier(rules, issuers, clock)
