"""Who may be whom, from where."""

import json
from pathlib import Path
from typing import Any

import pytest

from servicekit.access import ADMIN, MAINTAINER, RESEARCHER, SERVICE
from servicekit.auth import Authenticator, Identity, make_authenticator
from servicekit.errors import InvalidArgumentError, UnauthenticatedError
from servicekit.settings import ServiceSettings

LOOPBACK = "ipv4:127.0.0.1:50000"
DEVELOPER = Identity("default", "developer", frozenset({ADMIN}))
ADA = Identity("acme", "ada", frozenset({RESEARCHER, MAINTAINER}))
# sha256 of "secret"
DIGEST = "2bb80d537b1da3e38bd30361aa855686bde0eacd7162fef6a25fe97bf527a25b"


def authenticator(**values: Any) -> Authenticator:
    urls: dict[str, Any] = {f"database{login}_url": "unused" for login in ("", "_owner", "_infra")}
    return make_authenticator(ServiceSettings(**urls, **values))


def with_tokens(folder: Path, tenant: str = "acme", **values: Any) -> Authenticator:
    file = folder / "tokens.json"
    file.write_text(json.dumps({DIGEST.upper(): {"tenant": tenant, "actor": "ada"}}))
    return authenticator(auth="tokens", tokens_file=file, **values)


@pytest.mark.parametrize(
    "header", [{}, {"authorization": "Bearer development"}, {"authorization": "bearer development"}]
)
@pytest.mark.parametrize("peer", [LOOPBACK, "ipv6:[::1]:1", "ipv6:%5B::1%5D:1", "unix:/tmp/x"])
async def test_in_development_the_developer_needs_no_token_on_this_machine(
    header: dict[str, str], peer: str
) -> None:
    assert await authenticator().authenticate(header, peer) == DEVELOPER


@pytest.mark.parametrize("peer", ["ipv4:10.0.0.1:1", "ipv4:1.127.0.1:1", "ipv6:[::2]:1", ""])
@pytest.mark.parametrize("header", [{}, {"authorization": "Bearer development"}])
async def test_in_development_any_other_token_is_refused(header: dict[str, str], peer: str) -> None:
    with pytest.raises(UnauthenticatedError):
        await authenticator().authenticate(header, peer)


@pytest.mark.parametrize("header", ["Bearer nobody", "Basic development", "development", "Bearer sécret"])
async def test_an_unknown_token_is_refused_everywhere(header: str, tmp_path: Path) -> None:
    for each in (authenticator(), with_tokens(tmp_path), authenticator(service_token="own")):
        with pytest.raises(UnauthenticatedError):
            await each.authenticate({"authorization": header}, LOOPBACK)


async def test_a_known_token_decides_tenant_and_actor_whatever_the_metadata_claims(tmp_path: Path) -> None:
    metadata = {"authorization": "Bearer secret", "optaic-tenant": "rival", "optaic-actor": "root"}
    assert await with_tokens(tmp_path).authenticate(metadata, "ipv4:10.0.0.1:1") == ADA


@pytest.mark.parametrize(
    "header", [{}, {"authorization": "Bearer development"}, {"authorization": "Bearer "}]
)
async def test_with_a_token_file_the_development_token_is_refused(
    header: dict[str, str], tmp_path: Path
) -> None:
    with pytest.raises(UnauthenticatedError):
        await with_tokens(tmp_path).authenticate(header, LOOPBACK)


async def test_a_service_acts_for_the_tenant_it_names(tmp_path: Path) -> None:
    metadata = {"authorization": "Bearer own", "optaic-tenant": "acme", "optaic-actor": "ada"}
    for each in (authenticator(service_token="own"), with_tokens(tmp_path, service_token="own")):
        assert await each.authenticate(metadata, "ipv4:10.0.0.1:1") == Identity(
            "acme", "ada", frozenset({SERVICE})
        )


@pytest.mark.parametrize(
    "tenant", [{}, {"optaic-tenant": ""}, {"optaic-tenant": "a'b"}, {"optaic-tenant": "a.b"}]
)
async def test_a_service_must_name_a_tenant(tenant: dict[str, str]) -> None:
    with pytest.raises(InvalidArgumentError):
        await authenticator(service_token="own").authenticate(
            {"authorization": "Bearer own", **tenant}, LOOPBACK
        )


async def test_an_empty_service_token_admits_no_caller(tmp_path: Path) -> None:
    metadata = {"authorization": "Bearer ", "optaic-tenant": "acme"}
    with pytest.raises(UnauthenticatedError):
        await with_tokens(tmp_path).authenticate(metadata, LOOPBACK)
    assert await authenticator().authenticate(metadata, LOOPBACK) == DEVELOPER


def test_a_token_file_is_needed_and_checked(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="OPTAIC_TOKENS_FILE"):
        authenticator(auth="tokens")
    with pytest.raises(ValueError, match="tenant"):
        with_tokens(tmp_path, tenant="not a tenant")
