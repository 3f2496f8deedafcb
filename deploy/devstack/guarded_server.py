"""Serve an ASGI application of somebody else behind a login by HTTP Basic authentication.

A script: `python -P guarded_server.py APPLICATION`. It imports nothing of the project, because Prefect and MLflow would start later.
"""

from __future__ import annotations

import argparse
import base64
import binascii
import hashlib
import hmac
import importlib
import json
import os
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any, TypeAlias

import uvicorn

DIGEST = "OPTAIC_LOGIN_SHA256"  # the variable with the SHA-256 of `user:password`: the server has no use for the password itself

_Scope: TypeAlias = MutableMapping[str, Any]
_Receive: TypeAlias = Callable[[], Awaitable[_Scope]]
_Send: TypeAlias = Callable[[_Scope], Awaitable[None]]
Application: TypeAlias = Callable[[_Scope, _Receive, _Send], Awaitable[None]]

_REFUSAL = b"Log in: `make logins` or `optaic dev logins` prints the user and the password.\n"
_POLICY_VIOLATION = 1008  # the code with which a WebSocket is closed


class Guarded:
    """An application that answers 401 to everybody without the login, except on the path that says whether it is healthy."""

    def __init__(self, application: Application, digest: str, open_path: str) -> None:
        if len(digest) != hashlib.sha256().digest_size * 2:
            raise ValueError(f"{DIGEST} is no SHA-256; without it the server would have no login")
        self._application = application
        self._digest = digest.encode()
        self._open_path = open_path

    async def __call__(self, scope: _Scope, receive: _Receive, send: _Send) -> None:
        """Answer a request, or a WebSocket, or the start and the end of the server."""
        if scope["type"] == "lifespan" or self._is_open(scope) or self._has_login(scope):
            await self._application(scope, receive, send)
        elif scope["type"] == "websocket" and "prefect" in scope["subprotocols"]:
            await self._application(scope, self._checked(receive, send), send)
        elif scope["type"] == "websocket":
            await receive()
            await send({"type": "websocket.close", "code": _POLICY_VIOLATION})  # before it is accepted: 403
        else:
            await _refuse(send)

    def _is_open(self, scope: _Scope) -> bool:
        asked = (scope["type"], scope.get("method"), scope["path"])
        return asked == ("http", "GET", self._open_path)

    def _has_login(self, scope: _Scope) -> bool:
        given = [value for name, value in scope["headers"] if name == b"authorization"]
        if len(given) != 1:
            return False
        scheme, _, encoded = given[0].partition(b" ")
        if scheme.lower() != b"basic":
            return False
        try:
            return self._is_login(base64.b64decode(encoded.strip(), validate=True))
        except binascii.Error:
            return False

    def _is_login(self, login: bytes) -> bool:
        return hmac.compare_digest(hashlib.sha256(login).hexdigest().encode(), self._digest)

    def _checked(self, receive: _Receive, send: _Send) -> _Receive:
        """Return `receive` for a client of Prefect, whose first message has the login; its application gets nothing without it."""
        is_admitted = False

        async def receive_checked() -> _Scope:
            nonlocal is_admitted
            message = await receive()
            if message["type"] == "websocket.receive" and not is_admitted:
                is_admitted = self._is_login(_token_of(message))
                if not is_admitted:
                    await send({"type": "websocket.close", "code": _POLICY_VIOLATION})
                    return {"type": "websocket.disconnect", "code": _POLICY_VIOLATION}
            return message

        return receive_checked


def _token_of(message: _Scope) -> bytes:
    """Return the login of a client's first message; empty if it has none."""
    try:
        content = json.loads(message.get("text") or message.get("bytes") or b"")
    except (ValueError, RecursionError):
        return b""
    is_login = isinstance(content, dict) and content.get("type") == "auth"
    token = content.get("token") if is_login else None
    return token.encode(errors="replace") if isinstance(token, str) else b""


async def _refuse(send: _Send) -> None:
    headers = [
        (b"www-authenticate", b'Basic realm="OptAIC", charset="UTF-8"'),
        (b"content-type", b"text/plain; charset=utf-8"),
        (b"content-length", str(len(_REFUSAL)).encode()),
        (b"cache-control", b"no-store"),
    ]
    await send({"type": "http.response.start", "status": 401, "headers": headers})
    await send({"type": "http.response.body", "body": _REFUSAL})


def _find(place: str) -> Any:
    module, _, name = place.partition(":")
    return getattr(importlib.import_module(module), name)


def main() -> None:
    """Read the command line, and serve until a signal."""
    parser = argparse.ArgumentParser()
    parser.add_argument("application", help="module:name")
    parser.add_argument("--factory", action="store_true", help="the name is that of a function that makes it")
    parser.add_argument("--prepare", default="", help="module:name of a function that is called first")
    parser.add_argument("--host", required=True)
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--open-path", required=True)
    arguments = parser.parse_args()
    digest = os.environ[DIGEST]

    def make() -> Guarded:
        found = _find(arguments.application)
        if arguments.prepare:
            _find(arguments.prepare)()
        return Guarded(found() if arguments.factory else found, digest, arguments.open_path)

    uvicorn.run(
        make,
        factory=True,
        host=arguments.host,
        port=arguments.port,
        log_level="warning",
        timeout_keep_alive=5,
        timeout_graceful_shutdown=3,
    )


if __name__ == "__main__":
    main()
