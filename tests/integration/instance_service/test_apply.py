"""Definitions and instances by file, against the running service."""

from __future__ import annotations

from typing import Any

from optaic.apply.documents import read_documents
from optaic.apply.execution import execute, read_existing
from optaic.apply.plan import make_plan
from optaic.client import AsyncClient
from support.instance_service import RunningInstanceService


def _file(version: str, **config: int) -> dict[str, Any]:
    """Return a document of a definition, whose parameters are those of `config`, and of two that follow it."""
    schema = {"properties": {name: {"type": "integer"} for name in config}, "additionalProperties": False}
    content = {
        "version": version,
        "code_ref": "mine.pipelines:Mine",
        "parameters_schema": schema,
        "flow_specs": [{"flow_kind": "refresh", "is_default": True}],
    }
    pipeline = {"definition_name": "mine", "track_newest": True, "config": config}
    return {
        "project": "desk",
        "manager": "m",
        "definitions": [{"name": "mine", "kind": "pipeline", "definition_version": content}],
        "instances": [{"name": name, "dataset": {"pipeline": pipeline}} for name in ("x", "y")],
    }


async def test_a_version_comes_with_the_new_parameters_of_those_who_follow_it(
    service: RunningInstanceService,
) -> None:
    async with AsyncClient.connect(
        instance_address=service.app.server.address, token="development"
    ) as client:

        async def apply(file: dict[str, Any]) -> None:
            existing = await read_existing(client)
            version = file["definitions"][0]["definition_version"]["version"]
            async for done in execute(client, make_plan(read_documents([file]), existing), existing):
                # The service has moved who follows before the file comes to them.
                for each in existing.instances if str(done.action.verb) == "publish" else ():
                    await service.until(
                        each.instance_id,
                        lambda found: found.dataset.pipeline.definition_version == version,
                    )

        await apply(_file("1.0.0", n=1))
        newer = _file("1.1.0", n=1, m=2)
        newer["instances"].pop()  # the other one follows, and is not told of
        await apply(newer)
        existing = await read_existing(client)
        assert make_plan(read_documents([newer]), existing) == []
        configs = [dict(each.dataset.pipeline.config) for each in existing.instances]
        assert configs == [{"n": 1, "m": 2}, {"n": 1}]
