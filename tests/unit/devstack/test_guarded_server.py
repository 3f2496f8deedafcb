"""The login in front of the embedded Prefect and MLflow."""

from __future__ import annotations

import base64
import hashlib
import json
from typing import Any

import httpx
import pytest

from devstack.guarded_server import Guarded

LOGIN = "optaic:pass:wörd"
DIGEST = hashlib.sha256(LOGIN.encode()).hexdigest()
HEALTH = "/api/health"


async def _application(scope: Any, receive: Any, send: Any) -> None:
    if scope["type"] == "websocket":
        assert (await receive())["type"] == "websocket.connect"
        await send({"type": "websocket.accept"})
        while (message := await receive())["type"] == "websocket.receive":
            await send({"type": "websocket.send", "text": f"heard {message.get('text')}"})
        return
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": b"inside"})


def basic(login: str, scheme: str = "Basic") -> str:
    return f"{scheme} {base64.b64encode(login.encode()).decode()}"


async def ask(path: str, *authorization: str, method: str = "GET") -> httpx.Response:
    transport = httpx.ASGITransport(app=Guarded(_application, DIGEST, HEALTH))
    async with httpx.AsyncClient(transport=transport, base_url="http://tool") as client:
        headers = [("authorization", each) for each in authorization]
        return await client.request(method, path, headers=headers)


@pytest.mark.parametrize("scheme", ["Basic", "basic", "BASIC"])
async def test_the_login_admits(scheme: str) -> None:
    answer = await ask("/api/flows", basic(LOGIN, scheme), method="POST")
    assert (answer.status_code, answer.text) == (200, "inside")


@pytest.mark.parametrize(
    "authorization",
    [
        (),
        ("",),
        ("Basic",),
        ("Basic ",),
        ("Basic !!!!",),
        ("Basic b3B0YWlj",),
        (basic("optaic:"),),
        (basic(":pass:wörd"),),
        (basic("optaic:pass"),),
        (basic(f"{LOGIN} "),),
        (basic(LOGIN.upper()),),
        (basic(DIGEST),),
        (basic(LOGIN, "Bearer"),),
        (basic(LOGIN), basic(LOGIN)),
        (basic("a:b"), basic(LOGIN)),
    ],
)
@pytest.mark.parametrize("path", ["/", "/index.html", "/api/flows", "/static/app.js", "/graphql"])
async def test_everybody_else_is_asked_to_log_in(path: str, authorization: tuple[str, ...]) -> None:
    answer = await ask(path, *authorization)
    assert answer.status_code == 401
    assert answer.headers["www-authenticate"].startswith("Basic ")
    assert "inside" not in answer.text
    assert "logins" in answer.text, "it says how"


@pytest.mark.parametrize(
    ("path", "method", "status"),
    [
        (HEALTH, "GET", 200),
        (HEALTH, "POST", 401),
        (HEALTH, "OPTIONS", 401),
        (f"{HEALTH}/", "GET", 401),
        (f"/{HEALTH}", "GET", 401),
        (f"{HEALTH}/flows", "GET", 401),
        (f"/x{HEALTH}", "GET", 401),
        (f"/flows?{HEALTH}", "GET", 401),
        (f"{HEALTH.upper()}", "GET", 401),
    ],
)
async def test_only_the_path_that_tells_its_health_is_open(path: str, method: str, status: int) -> None:
    assert (await ask(path, method=method)).status_code == status


@pytest.mark.parametrize("digest", ["", "0", DIGEST[:-1], DIGEST + "0"])
def test_a_server_without_a_login_does_not_start(digest: str) -> None:
    with pytest.raises(ValueError, match="OPTAIC_LOGIN_SHA256"):
        Guarded(_application, digest, HEALTH)


async def converse(
    *sent: str, headers: tuple[str, ...] = (), subprotocols: tuple[str, ...] = ("prefect",)
) -> list[Any]:
    """Send texts through a WebSocket; return what comes back."""
    scope = {
        "type": "websocket",
        "path": HEALTH,  # open for GET only
        "headers": [(b"authorization", each.encode()) for each in headers],
        "subprotocols": list(subprotocols),
    }
    messages: list[Any] = [
        {"type": "websocket.connect"},
        *({"type": "websocket.receive", "text": each} for each in sent),
    ]
    messages.append({"type": "websocket.disconnect", "code": 1000})
    answers: list[Any] = []

    async def receive() -> Any:
        return messages.pop(0)

    async def send(message: Any) -> None:
        answers.append(message)

    await Guarded(_application, DIGEST, HEALTH)(scope, receive, send)
    return answers


AUTH = json.dumps({"type": "auth", "token": LOGIN})


@pytest.mark.parametrize("subprotocols", [(), ("prefect",)])
async def test_a_websocket_with_the_login_is_passed_on(subprotocols: tuple[str, ...]) -> None:
    answers = await converse("one", "two", headers=(basic(LOGIN),), subprotocols=subprotocols)
    assert [each.get("text") for each in answers[1:]] == ["heard one", "heard two"]


async def test_prefects_clients_may_log_in_by_their_first_message() -> None:
    answers = await converse(AUTH, "more")
    assert [each.get("text") for each in answers[1:]] == [f"heard {AUTH}", "heard more"]


@pytest.mark.parametrize(
    "first",
    [
        "",
        "{",
        "[" * 100_000,
        "[]",
        "null",
        json.dumps({"type": "auth"}),
        json.dumps({"type": "auth", "token": None}),
        json.dumps({"type": "auth", "token": [LOGIN]}),
        json.dumps({"type": "auth", "token": "optaic:wrong"}),
        json.dumps({"type": "auth", "token": "\ud800"}),
        json.dumps({"type": "filter", "token": LOGIN}),
    ],
)
async def test_a_first_message_without_the_login_ends_the_websocket(first: str) -> None:
    answers = await converse(first, AUTH, "more")
    assert [each["type"] for each in answers] == ["websocket.accept", "websocket.close"]
    assert answers[-1]["code"] == 1008


@pytest.mark.parametrize("headers", [(), (basic("a:b"),)])
async def test_a_websocket_of_another_kind_is_not_even_accepted(headers: tuple[str, ...]) -> None:
    answers = await converse(AUTH, headers=headers, subprotocols=())
    assert [each["type"] for each in answers] == ["websocket.close"]
