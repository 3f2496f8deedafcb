"""The door of the gateway, attacked without a valid token: what is refused there, and what it never gives away.

No service stands behind it: whatever comes in answers DEPENDENCY_UNAVAILABLE.
"""

from __future__ import annotations

import asyncio
import gzip
import json
import ssl
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import pytest_asyncio

from devstack.certificates import Authority
from gateway.config import Settings
from gateway.methods import find_methods
from support.gateway import RunningGateway, gateway_of
from support.gateway_door import CAME_IN, GUARDS, METHOD, NOWHERE, outcome
from support.tls_world import write

pytestmark = pytest.mark.asyncio(loop_scope="module")
WATCH = "/optaic.run.v1.RunService/WatchRun"
PUBLIC = ("/", "/healthz", "/readyz", "/openapi.json")
SECRET = "a-token-that-must-never-be-repeated"


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def door() -> AsyncIterator[RunningGateway]:
    async with gateway_of(NOWHERE, body_timeout_seconds=1.0) as running:
        yield running


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def closed() -> AsyncIterator[RunningGateway]:
    """Run a gateway that admits only whoever brings a token."""
    async with gateway_of(NOWHERE, auth="tokens", caller_calls=2, maximum_calls=3) as running:
        yield running


async def test_a_call_comes_in_where_nothing_speaks_against_it(door: RunningGateway) -> None:
    assert outcome(await door.post(METHOD)) == CAME_IN
    own = {"origin": door.url, "sec-fetch-site": "same-origin"}
    assert outcome(await door.post(METHOD, headers=own)) == CAME_IN
    for host in ("localhost", "127.0.0.1", "[::1]", "LOCALHOST:1", "localhost:65535"):
        assert outcome(await door.post(METHOD, headers={"host": host})) == CAME_IN


@pytest.mark.parametrize("path", [METHOD, *PUBLIC])
@pytest.mark.parametrize(
    "host",
    [
        "evil.example",
        "127.0.0.1.evil.example",
        "localhost.evil.example:80",
        "evil.example:8080",
        "127.0.0.2",
        "10.0.0.1",
        "localhost@evil.example",
        "localhost:80:80",
        "[::1].evil.example",
        "",
        "127.0.0.1 evil.example",
    ],
)
async def test_a_name_that_is_not_ours_is_refused_for_every_path(
    door: RunningGateway, path: str, host: str
) -> None:
    """A page of evil.example whose name leads to this machine (DNS rebinding) sends this Host."""
    answer = await (
        door.post(path, headers={"host": host})
        if path == METHOD
        else door.client.get(path, headers={"host": host})
    )
    if answer.status_code != 400 or answer.content:  # the server itself refuses some
        assert outcome(answer) == (421, "HOST_NOT_SERVED")


@pytest.mark.parametrize(
    "headers",
    [
        {"origin": "http://evil.example"},
        {"origin": "null"},
        {"origin": ""},
        {"origin": "http://127.0.0.1:1"},
        {"origin": "http://localhost"},
        {"origin": "https://OWN"},
        {"origin": "http://OWN.evil.example"},
        {"origin": "http://evil@OWN/"},
        {"origin": "file://"},
        {"origin": "chrome-extension://abcdefgh"},
        {"origin": "http://["},
        {"sec-fetch-site": "cross-site"},
        {"sec-fetch-site": "same-site"},
        {"origin": "http://OWN", "sec-fetch-site": "cross-site"},
    ],
)
async def test_a_page_that_is_not_ours_is_refused(door: RunningGateway, headers: dict[str, str]) -> None:
    own = door.gateway.server.address
    given = {name: value.replace("OWN", own) for name, value in headers.items()}
    assert outcome(await door.post(METHOD, headers=given)) == (403, "ORIGIN_NOT_SERVED")


async def test_a_preflight_is_not_answered(door: RunningGateway) -> None:
    headers = {"origin": "http://evil.example", "access-control-request-method": "POST"}
    answer = await door.client.options(METHOD, headers=headers)
    assert outcome(answer) == (403, "ORIGIN_NOT_SERVED")


@pytest.mark.parametrize("method", ["GET", "HEAD", "PUT", "DELETE", "PATCH", "OPTIONS", "TRACE", "PROPFIND"])
async def test_a_method_answers_to_post_only(door: RunningGateway, method: str) -> None:
    answer = await door.client.request(method, f"{METHOD}?connect=v1&encoding=json&message=%7B%7D")
    assert answer.status_code == 405


async def test_a_page_answers_to_get_and_head_only(door: RunningGateway) -> None:
    for path in PUBLIC:
        answer = await door.client.get(path)
        assert GUARDS.items() <= dict(answer.headers).items()
        assert answer.content
        assert not (await door.client.head(path)).content
        assert (await door.client.post(path)).status_code == 405


@pytest.mark.parametrize(
    "media_type",
    [
        "text/plain",
        "application/x-www-form-urlencoded",
        "multipart/form-data; boundary=x",
        "",
        "application/grpc",
        "application/xml",
        "application/connect+json",
        "application/jsonx",
        "application/grpc-web-text",
    ],
)
async def test_what_a_form_could_send_is_no_call(door: RunningGateway, media_type: str) -> None:
    answer = await door.post(METHOD, b"{}", headers={"content-type": media_type})
    assert outcome(answer) == (415, "UNSUPPORTED_MEDIA_TYPE")


@pytest.mark.parametrize(
    "path",
    [
        "/optaic.run.v1.RunReportService/StartRun",
        "/optaic.lineage.v1.LineageService/PlanFlows",
        "/optaic.instance.v1.ProbeService/ClaimProbes",
        "/grpc.health.v1.Health/Check",
        "/optaic.run.v1.RunService/",
        "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo",
        "/optaic.audit.v1.AuditService/ListAuditRecords",
        f"/{METHOD}",
        f"{METHOD}/",
        f"{METHOD}%00",
        "/..%2f..%2fetc%2fpasswd",
        "/%ff",
        "/gateway" + METHOD,
    ],
)
async def test_no_other_path_leads_anywhere(door: RunningGateway, path: str) -> None:
    answer = await door.client.post(
        httpx.URL(door.url).copy_with(raw_path=path.encode()),
        content=b"{}",
        headers={"content-type": "application/json"},
    )
    assert answer.status_code == 404


@pytest.mark.parametrize(
    "body",
    [
        b"[]", b" [] ", b"null", b'""', b"0", b'"x"', b"{", b"\x00", b"\xff\xfe", b'{"runId": 1}', b'{"unknown": 1}', b'{"runId": "x", "runId": "y"}',
        b"[" * 5000, b'{"a":' * 5000, b"1e999", b'{"runId": "\\ud800"}',
    ],
    ids=lambda body: repr(body[:20]),
)  # fmt: skip
async def test_every_body_that_is_no_request_is_refused(door: RunningGateway, body: bytes) -> None:
    assert outcome(await door.post(METHOD, body)) == (400, "MALFORMED_REQUEST")


@pytest.mark.parametrize(
    "body", [b"", b"{}", b" {} ", b'{"runId": "x"}', b'{"run_id": "x"}', b'{"runId": null}']
)
async def test_every_body_that_is_a_request_comes_in(door: RunningGateway, body: bytes) -> None:
    assert outcome(await door.post(METHOD, body)) == CAME_IN


@pytest.mark.parametrize(
    "name", ["authorization", "x-request-id", "traceparent", "optaic-read-tokens", "connect-timeout-ms"]
)
@pytest.mark.parametrize("value", ["Bearer a\tb", "Bearer \xe4", "\xff"])
async def test_a_header_that_grpc_does_not_take_is_refused(
    door: RunningGateway, name: str, value: str
) -> None:
    answer = await door.post(METHOD, headers={name: value.encode("latin-1")})  # type: ignore[dict-item]  # httpx takes bytes too
    assert outcome(answer) == (400, "MALFORMED_REQUEST")
    assert name in answer.json()["message"]


@pytest.mark.parametrize("name", ["cookie", "user-agent", "x-other"])
async def test_a_header_that_nobody_reads_may_have_any_characters(door: RunningGateway, name: str) -> None:
    """Browsers send the cookies of other programs on this machine, and proxies the names of people."""
    headers: dict[str, Any] = {name: "name=J\xfcrgen\tM".encode("latin-1")}
    assert outcome(await door.post(METHOD, headers=headers)) == CAME_IN
    assert (await door.client.get("/healthz", headers=headers)).is_success


async def test_a_body_that_is_too_long_is_refused_whether_it_says_so_or_not(door: RunningGateway) -> None:
    limit = find_methods()[METHOD].most_bytes
    too_large = b'{"runId": "' + b"x" * limit + b'"}'

    async def pieces() -> AsyncIterator[bytes]:
        for _ in range(0, limit + 20_000, 10_000):
            yield b"x" * 10_000

    for content in (too_large, pieces()):
        try:
            answer = await door.client.post(
                METHOD, content=content, headers={"content-type": "application/json"}
            )
        except httpx.TransportError:
            continue  # the server closes the connection, and the client may not have read why
        assert outcome(answer) == (413, "REQUEST_TOO_LARGE")
    head = f"POST {METHOD} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
    assert await _raw_status(door, f"{head}Content-Length: {limit + 1}\r\n\r\n".encode()) == 413


async def test_a_body_in_a_compressed_form_is_not_opened(door: RunningGateway) -> None:
    """A thousand times as much could stand behind it."""
    headers = {"content-encoding": "gzip", "content-type": "application/json"}
    answer = await door.post(METHOD, gzip.compress(b"{}"), headers=headers)
    assert (answer.status_code, answer.json()["code"]) == (501, "unimplemented")


async def test_a_header_that_says_who_calls_stands_once(door: RunningGateway) -> None:
    for name in ("authorization", "origin", "content-type", "content-length"):
        status = await _raw_status(
            door, f"POST {METHOD} HTTP/1.1\r\nHost: localhost\r\n{name}: 1\r\n{name}: 2\r\n\r\n".encode()
        )
        assert status == 400


async def _raw_status(door: RunningGateway, request: bytes) -> int:
    host, _, port = door.gateway.server.address.rpartition(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    try:
        writer.write(request)
        line = await asyncio.wait_for(reader.readline(), 10)
    finally:
        writer.close()
    return int(line.split()[1]) if line else 0


async def test_headers_that_are_too_long_are_refused(door: RunningGateway) -> None:
    request = f"POST {METHOD} HTTP/1.1\r\nHost: localhost\r\nX-Long: {'x' * 33_000}\r\n\r\n"
    assert await _raw_status(door, request.encode()) == 431


async def test_a_body_that_does_not_come_is_not_waited_for(door: RunningGateway) -> None:
    request = f"POST {METHOD} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: 9\r\n\r\n{{"
    assert await _raw_status(door, request.encode()) == 408


@pytest.mark.parametrize(
    "authorization", ["", "Bearer", "Bearer development", "Basic YTpi", "bearer  development"]
)
async def test_without_a_token_nothing_is_passed_on(closed: RunningGateway, authorization: str) -> None:
    headers = {"authorization": authorization} if authorization else {}
    for path in (METHOD, "/run/optaic.audit.v1.AuditService/ListAuditRecords"):
        answer = await closed.post(path, headers=headers)
        assert outcome(answer) == (401, "UNAUTHENTICATED")
        assert answer.headers["www-authenticate"] == "Bearer"


async def test_no_answer_and_no_line_of_the_log_repeats_a_token(
    closed: RunningGateway, capsys: pytest.CaptureFixture[str]
) -> None:
    headers = {"authorization": f"Bearer {SECRET}"}
    answers = [
        await closed.post(METHOD, headers=headers),
        await closed.post(METHOD, b"{", headers=headers),
        await closed.post(METHOD, json.dumps({SECRET: 1}).encode()[:-1], headers=headers),
        await closed.post("/nowhere", headers=headers),
        await closed.post(METHOD, headers={**headers, "origin": "http://evil.example"}),
        await closed.client.get("/openapi.json", headers=headers),
    ]
    shown = capsys.readouterr()
    assert all(SECRET not in answer.text and SECRET not in str(answer.headers) for answer in answers)
    assert SECRET not in shown.out + shown.err


@pytest.mark.parametrize(
    "settings",
    [
        {"listen": "0.0.0.0:1"},
        {"listen": "0.0.0.0:1", "auth": "tokens"},
        {"listen": "10.0.0.1:1", "auth": "oidc", "https_certificate": "x.pem"},
        {"run_address": "10.0.0.1:50052"},
        {"further_data_roots": ("",)},
        {"further_data_roots": ("relative",)},
        {"further_data_roots": ("/srv/../etc",)},
    ],
)
async def test_settings_that_would_open_it_to_others_are_refused(settings: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="OPTAIC_"):
        Settings(**settings)


async def test_https_is_served_with_the_certificate_of_the_settings(tmp_path: Path) -> None:
    authority = Authority()
    write(tmp_path, "own", authority.issue("gateway"))
    files: dict[str, Any] = {"https_certificate": tmp_path / "own.pem", "https_key": tmp_path / "own.key"}
    context = ssl.create_default_context(cadata=authority.pem)
    async with gateway_of(NOWHERE, **files, verify=context) as running:
        answer = await running.post(METHOD, headers={"origin": running.url})
        assert outcome(answer) == CAME_IN
        assert "strict-transport-security" in answer.headers
        async with httpx.AsyncClient(
            base_url=running.url, http1=False, http2=True, trust_env=False, verify=context
        ) as client:
            second = RunningGateway(running.gateway, client)
            assert (await client.get("/healthz")).http_version == "HTTP/2"
            assert outcome(await second.post(METHOD, headers={"origin": running.url})) == CAME_IN
            for origin in ("https://127.0.0.1", "https://127.0.0.1:1", "http://127.0.0.1"):
                refused = await second.post(METHOD, headers={"origin": origin})
                assert outcome(refused) == (403, "ORIGIN_NOT_SERVED")
