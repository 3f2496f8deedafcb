"""The ten commands of docs/security.md start a stack with OpenID Connect and TLS, as they stand; only the issuer is another."""

from __future__ import annotations

import asyncio
import os
import re
import sys
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from support.oidc import RSA, ServedIssuer, sign

ROOT = Path(__file__).parents[2]
_ISSUER_OF_THE_PAGE = "https://login.example.com/realms/research"
_START_SECONDS = 500  # a minute, unless the machine is busy
_README = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)[0]


def commands() -> list[str]:
    """Return the commands that the page shows."""
    page = (ROOT / "docs" / "security.md").read_text()
    section = page.split("### How to run with OIDC and TLS in ten commands\n")[1]
    (block,) = re.findall(r"```sh\n(.*?)```", section.split("\n## ")[0], re.DOTALL)
    return str(block).splitlines()


@dataclass
class World:
    """A folder in which the commands were executed, and what they printed."""

    folder: Path
    environment: dict[str, str]
    output: str

    async def run(self, *arguments: str, **changes: str) -> tuple[int, str]:
        """Execute a program as the commands would go on; return its exit status and what it says."""
        return await _execute(self.folder, self.environment | changes, *arguments)


async def _execute(folder: Path, environment: dict[str, str], *arguments: str) -> tuple[int, str]:
    process = await asyncio.create_subprocess_exec(
        *arguments,
        cwd=folder,
        env=environment,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    async with asyncio.timeout(_START_SECONDS):
        output, _ = await process.communicate()
    assert process.returncode is not None
    return process.returncode, output.decode()


def _token(issuer: str, **changes: object) -> str:
    claims = {
        "iss": issuer,
        "aud": "optaic",
        "sub": "ada",
        "exp": int(time.time()) + 3600,
        "tenant": "default",
        "realm_access": {"roles": ["optaic-leads"]},
    }
    return sign(claims | changes, RSA)


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    """Execute the commands; stop the stack at the end. The stack is one of its own: it is what the commands start."""
    async with ServedIssuer() as served:
        url = served.issuer.url
        (tmp_path / "token.txt").write_text(_token(url))
        script = "\n".join(commands()).replace(_ISSUER_OF_THE_PAGE, url)
        environment = {
            **{name: value for name, value in os.environ.items() if not name.startswith("OPTAIC_")},
            "PATH": os.pathsep.join((str(Path(sys.executable).parent), os.environ["PATH"])),
            "OPTAIC_START_TIMEOUT_SECONDS": "360",
        }
        exports = tmp_path / "exports"
        try:
            status, output = await _execute(
                tmp_path, environment, "bash", "-e", "-c", f"{script}\nexport -p > {exports}"
            )
            assert status == 0, output
            _, listed = await _execute(
                tmp_path, {"PATH": environment["PATH"]}, "bash", "-c", f". {exports}; env -0"
            )
            given = dict(each.split("=", 1) for each in listed.split("\0") if "=" in each)
            yield World(tmp_path, given, output)
        finally:
            await _execute(tmp_path, environment, "optaic", "dev", "down")


def test_they_are_ten() -> None:
    assert len(commands()) == 10


async def test_the_ten_commands_start_a_stack_that_knows_everybody(world: World) -> None:
    assert "desk" in world.output
    assert "OPTAIC_AUTH=oidc" in world.output
    assert "TLS" in world.output
    status, output = await world.run("optaic", "dev", "status")
    assert status == 0, output
    # The worker and the services have certificates and no token.
    status, output = await world.run(sys.executable, "-c", _README)
    assert status == 0, output
    assert "COMPLETED READY" in output
    # The commands of operators show certificates to NATS.
    status, output = await world.run(sys.executable, "-m", "devstack.dead_letters", "list")
    assert (status, output.strip()) == (0, "0 dead letters")
    status, output = await world.run(sys.executable, "-m", "devstack", "republish")
    assert status == 0, output
    await _refuses_the_others(world)


async def _refuses_the_others(world: World) -> None:
    """Check that a certificate without a token counts no more than a token without a certificate."""
    read = ("optaic", "project", "list")
    issuer = re.search(r"http://[\d.:]+", world.environment["OPTAIC_OIDC_ISSUERS"])
    assert issuer is not None
    refused = {
        "no token": {"OPTAIC_TOKEN": ""},
        "the token of development": {"OPTAIC_TOKEN": "development"},
        "an expired token": {"OPTAIC_TOKEN": _token(issuer[0], exp=int(time.time()) - 3600)},
        "another audience": {"OPTAIC_TOKEN": _token(issuer[0], aud="other")},
        "no certificate": {"OPTAIC_TLS_CA": str(world.folder / ".state/certificates/ca.pem")},
    }
    for name, changes in refused.items():
        status, output = await world.run(*read, **changes)
        assert status != 0, f"{name}: {output}"
    status, output = await world.run(*read)
    assert status == 0, output
