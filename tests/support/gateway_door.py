"""The answers of a gateway without services: whatever comes in answers DEPENDENCY_UNAVAILABLE."""

from __future__ import annotations

import httpx

NOWHERE = {"instance": "127.0.0.1:1", "run": "127.0.0.1:1", "lineage": "127.0.0.1:1", "status": "127.0.0.1:1"}
METHOD = "/optaic.run.v1.RunService/GetRun"
CAME_IN = (503, "DEPENDENCY_UNAVAILABLE")
GUARDS = {
    "content-security-policy": "default-src 'none'; frame-ancestors 'none'",
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "x-frame-options": "DENY",
    "cross-origin-resource-policy": "same-origin",
}


def outcome(answer: httpx.Response) -> tuple[int, str]:
    """Return the status and the reason of a refusal; each guards itself."""
    assert GUARDS.items() <= dict(answer.headers).items()
    assert "access-control-allow-origin" not in answer.headers
    body = answer.json()
    return answer.status_code, body["details"][0]["debug"]["reason"] if body.get("details") else ""
