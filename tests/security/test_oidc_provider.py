"""The tokens of a real OpenID Connect provider, from the provider to the answer of a service."""

from __future__ import annotations

import base64
import shutil
import subprocess
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import httpx
import pytest
import pytest_asyncio

from devstack import ports
from devstack.postgres import Postgres
from optaic.client.asynchronous import AsyncClient
from optaic.errors import OptaicError
from support.broker import NatsAccounts
from support.instance_service import instance_service
from support.oidc import encode

PACKAGE = "oidc-provider@9.13.3"
SCRIPT = Path(__file__).parents[1] / "support" / "oidc_provider.mjs"
_INSTALL_SECONDS = 120


@pytest.fixture(scope="module")
def issuer(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Start the provider; yield its address."""
    node, npm = shutil.which("node"), shutil.which("npm")
    if node is None or npm is None:
        pytest.skip("not installed: node or npm")
    folder = tmp_path_factory.mktemp("provider")
    install = [
        npm,
        "install",
        "--silent",
        "--no-audit",
        "--no-fund",
        "--ignore-scripts",
        "--prefix",
        str(folder),
    ]
    try:
        subprocess.run([*install, PACKAGE], check=True, timeout=_INSTALL_SECONDS, capture_output=True)
    except (subprocess.CalledProcessError, subprocess.TimeoutExpired) as error:
        pytest.skip(f"npm cannot install {PACKAGE}: {type(error).__name__}")
    shutil.copy(SCRIPT, folder)
    port = ports.assign({"provider": 0}, {})["provider"]
    with subprocess.Popen(
        [node, SCRIPT.name, str(port)],
        cwd=folder,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    ) as process:
        try:
            assert process.stdout is not None
            said = []
            for line in process.stdout:
                said.append(line)
                if "ready" in line:
                    break
            else:
                pytest.fail("".join(said))
            yield f"http://127.0.0.1:{port}"
        finally:
            process.terminate()


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def address(issuer: str, postgres_server: Postgres, nats_accounts: NatsAccounts) -> AsyncIterator[str]:
    """Run instance-service for the provider's tokens; yield its address."""
    del postgres_server
    settings = {
        "auth": "oidc",
        "oidc_issuers": (issuer,),
        "oidc_audiences": ("optaic",),
        "oidc_actor_claim": "actor",
        "oidc_roles": {"optaic-users": "researcher", "optaic-readers": "viewer"},
    }
    async with instance_service(nats_accounts.take(), **settings) as service:
        yield service.app.server.address


def token_of(issuer: str, client: str) -> str:
    """Return an access token, as a program gets one."""
    with httpx.Client(trust_env=False) as http:
        configuration = http.get(f"{issuer}/.well-known/openid-configuration").json()
        answer = http.post(
            configuration["token_endpoint"],
            data={"grant_type": "client_credentials", "scope": "optaic"},
            auth=(client, f"secret-of-{client}"),
        )
    return str(answer.raise_for_status().json()["access_token"])


@pytest.mark.asyncio(loop_scope="module")
async def test_a_program_works_with_the_token_that_its_provider_gives_it(issuer: str, address: str) -> None:
    async with AsyncClient.connect(instance_address=address, token=token_of(issuer, "researcher")) as client:
        project = await client.projects.create("research")
        assert project.author == "researcher"
    async with AsyncClient.connect(instance_address=address, token=token_of(issuer, "reader")) as client:
        assert [each.name for each in await client.projects.list()] == ["research"]
        with pytest.raises(OptaicError, match="researcher"):
            await client.projects.create("another")
    async with AsyncClient.connect(instance_address=address, token=token_of(issuer, "rival")) as client:
        assert list(await client.projects.list()) == []


@pytest.mark.asyncio(loop_scope="module")
@pytest.mark.parametrize(
    ("client", "problem"), [("homeless", "tenant"), ("roleless", "roles"), ("elsewhere", "aud")]
)
async def test_a_token_of_the_provider_that_lacks_something_is_refused_with_what_it_lacks(
    issuer: str, address: str, client: str, problem: str
) -> None:
    async with AsyncClient.connect(instance_address=address, token=token_of(issuer, client)) as connected:
        with pytest.raises(OptaicError, match=problem):
            await connected.projects.list()


@pytest.mark.asyncio(loop_scope="module")
async def test_a_token_of_the_provider_that_was_changed_is_refused(issuer: str, address: str) -> None:
    header, claims, signature = token_of(issuer, "researcher").split(".")
    content = base64.urlsafe_b64decode(claims + "=" * (-len(claims) % 4))
    changed = encode(content.replace(b'"default"', b'"another"'))
    assert changed != claims
    for token in (
        f"{header}.{changed}.{signature}",
        f"{encode({'alg': 'none'})}.{claims}.",
        f"{header}.{claims}.{signature[:-8]}AAAAAAAA",
    ):
        async with AsyncClient.connect(instance_address=address, token=token) as client:
            with pytest.raises(OptaicError) as refused:
                await client.projects.list()
        assert refused.value.code.name == "UNAUTHENTICATED"
