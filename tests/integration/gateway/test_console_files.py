"""The files of the console: how they are served, and what they weigh."""

from __future__ import annotations

from collections.abc import AsyncIterator

import httpx
import pytest
import pytest_asyncio

from support.contract import ROOT
from support.gateway import RunningGateway, gateway_of

pytestmark = pytest.mark.asyncio(loop_scope="module")
BUILT = ROOT / "services" / "gateway" / "built_console"


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def gateway() -> AsyncIterator[RunningGateway]:
    addresses = dict.fromkeys(("instance", "run", "lineage", "status"), "127.0.0.1:9")
    async with gateway_of(addresses) as running:
        yield running


def script() -> str:
    """Return the path of the script that the page loads."""
    return next(f"/console/assets/{each.name}" for each in (BUILT / "assets").glob("index-*.js"))


async def test_a_browser_at_the_root_is_led_to_the_console(gateway: RunningGateway) -> None:
    answer = await gateway.client.get("/", headers={"accept": "text/html,*/*"})
    assert (answer.status_code, answer.headers["location"]) == (307, "/console/")
    assert (await gateway.client.get("/")).status_code == 200


@pytest.mark.parametrize(
    "path", ["/console/", "/console/instances", "/console/runs/1/2/3", "/console/index.html"]
)
async def test_every_page_is_the_page_with_a_strict_policy(gateway: RunningGateway, path: str) -> None:
    answer = await gateway.client.get(path)
    assert answer.status_code == 200
    assert answer.headers["content-type"] == "text/html; charset=utf-8"
    assert answer.headers["cache-control"] == "no-cache"
    policy = answer.headers["content-security-policy"]
    assert "default-src 'none'" in policy
    assert "unsafe" not in policy
    assert "http" not in policy.replace("https:", "http:")
    assert answer.headers["x-frame-options"] == "DENY"


async def test_a_file_is_kept_for_ever_and_comes_packed(gateway: RunningGateway) -> None:
    answer = await gateway.client.get(script(), headers={"accept-encoding": "gzip"})
    assert answer.headers["content-type"] == "text/javascript; charset=utf-8"
    assert "immutable" in answer.headers["cache-control"]
    assert answer.headers["content-encoding"] == "gzip"
    assert answer.content == (BUILT / script().removeprefix("/console/")).read_bytes()
    plain = await gateway.client.get(script(), headers={"accept-encoding": "identity"})
    assert plain.content == answer.content
    assert "content-encoding" not in plain.headers
    known = await gateway.client.get(script(), headers={"if-none-match": answer.headers["etag"]})
    assert (known.status_code, known.content) == (304, b"")
    head = await gateway.client.head(script(), headers={"accept-encoding": "identity"})
    assert (head.status_code, head.content) == (200, b"")
    assert int(head.headers["content-length"]) == len(plain.content)


@pytest.mark.parametrize(
    "path",
    [
        "/console/assets/nothing.js",
        "/console/assets/../../door.py",
        "/console/assets/%2e%2e/%2e%2e/door.py",
        "/console/assets/..%2f..%2fdoor.py",
        "/console/assets//etc/passwd",
        "/console/assets/",
    ],
)
async def test_nothing_but_built_files_is_served(gateway: RunningGateway, path: str) -> None:
    async with httpx.AsyncClient(trust_env=False) as client:
        answer = await client.get(f"{gateway.url}{path}")
    assert b"import asyncio" not in answer.content
    assert answer.status_code == 404 or answer.text.startswith("<!doctype html>")


async def test_other_methods_are_refused(gateway: RunningGateway) -> None:
    assert (await gateway.client.post("/console/")).status_code == 405


async def test_a_foreign_host_gets_nothing(gateway: RunningGateway) -> None:
    assert (await gateway.client.get("/console/", headers={"host": "evil.example"})).status_code == 421


async def test_the_first_page_weighs_little(gateway: RunningGateway) -> None:
    paths = ["/console/", *(f"/console/assets/{each.name}" for each in (BUILT / "assets").iterdir())]
    first = [each for each in paths if "elk" not in each and "lineage" not in each]
    weight = 0
    for each in first:
        async with gateway.client.stream("GET", each, headers={"accept-encoding": "gzip"}) as answer:
            weight += sum([len(piece) async for piece in answer.aiter_raw()])
    assert weight <= 500_000
