"""Definitions and instances by file, against the running service."""

from __future__ import annotations

from typing import Any

import pytest

from optaic.apply.documents import read_documents
from optaic.apply.execution import execute, read_existing
from optaic.apply.plan import make_plan
from optaic.client import AsyncClient
from optaic.errors import ConflictError
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


async def test_a_version_and_the_new_parameters_of_tracking_instances_are_applied_together(
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


async def test_every_refusal_of_the_service_has_its_place_in_the_file(
    service: RunningInstanceService,
) -> None:
    async with AsyncClient.connect(
        instance_address=service.app.server.address, token="development"
    ) as client:
        project = await client.projects.create("desk")
        raw = await service.prices(project.project_id, "raw")
        prices = {"definition_name": "sp500_prices", "config": {"as_of": "2021-12-31"}}
        file = {
            "project": "desk",
            "manager": "m",
            "definitions": [{"name": "mine", "kind": "pipeline", "definition_version": {"version": "1"}}],
            "instances": [
                {"name": "good", "dataset": {"pipeline": prices}},
                {"name": "a", "dataset": {"pipeline": {**prices, "config": {"as_of": 3}}}},
                {"name": "b", "dataset": {"pipeline": prices}, "upstreams": {"input": raw.instance_id}},
            ],
        }
        existing = await read_existing(client)
        actions = make_plan(read_documents([file]), existing)
        with pytest.raises(ConflictError) as caught:
            [each async for each in execute(client, actions, existing, dry_run=True)]
        assert [each.field for each in caught.value.violations] == [
            "documents[0].definitions[0].definition_version.version",
            "documents[0].instances[1].dataset.pipeline.config.as_of",
            "documents[0].instances[2].upstreams.input",
        ]
