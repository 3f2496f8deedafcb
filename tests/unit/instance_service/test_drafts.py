"""How mildly a draft is judged does not depend on the way by which it is made."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

import pytest

from instance_service.resources.instances import drafts
from instance_service.use_cases.dependencies import Dependencies
from optaic.instance.v1.instance_pb2 import Instance
from servicekit.errors import NotFoundError


@pytest.mark.parametrize("is_lenient", [False, True])
async def test_an_instance_that_cannot_move_to_the_newest_version_is_checked_as_leniently_as_one_that_can(
    monkeypatch: pytest.MonkeyPatch, *, is_lenient: bool
) -> None:
    judged: list[bool] = []

    def prepare(*_: object, stays: bool = False) -> Any:
        return SimpleNamespace(stays=stays, now=None)

    async def gather(*_: object) -> None:
        return None

    def complete(*_: object, is_lenient: bool) -> Any:
        judged.append(is_lenient)
        if len(judged) == 1:
            raise NotFoundError("DEFINITION_NOT_FOUND", "its newest version was retired")
        return SimpleNamespace(instance=Instance())

    for function in (prepare, gather, complete):
        monkeypatch.setattr(drafts, function.__name__, function)
    monkeypatch.setattr(drafts, "set_blocked_from_newest", lambda *_: None)
    deps = cast("Dependencies", SimpleNamespace(is_lenient=is_lenient))
    await drafts.draft_instance(deps, cast("Any", None), "acme", Instance(), Instance())
    assert judged == [is_lenient] * 2
