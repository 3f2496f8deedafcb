"""Definitions and instances by file, against the running service."""

from __future__ import annotations

from typing import Any

import pytest

from optaic.apply.documents import read_documents
from optaic.apply.execution import execute, read_existing
from optaic.apply.plan import FieldChange, make_plan
from optaic.client import AsyncClient
from optaic.errors import ConflictError, OptaicError
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


async def test_a_time_limit_is_applied_shown_as_a_difference_and_taken_away(
    service: RunningInstanceService,
) -> None:
    prices = {"definition_name": "sp500_prices", "config": {"as_of": "2021-12-31"}}
    async with AsyncClient.connect(
        instance_address=service.app.server.address, token="development"
    ) as client:

        async def apply(**schedule: object) -> list[FieldChange]:
            """Apply a file with this schedule; return the fields that it has changed."""
            instance = {"name": "prices", "dataset": {"pipeline": prices}, "schedule": schedule}
            file = {"project": "desk", "manager": "m", "instances": [instance]}
            existing = await read_existing(client)
            actions = make_plan(read_documents([file]), existing)
            assert [each async for each in execute(client, actions, existing, dry_run=True)]
            assert [each async for each in execute(client, actions, existing)]
            existing = await read_existing(client)
            assert make_plan(read_documents([file]), existing) == []
            return [change for each in actions for change in each.changes]

        async def limit() -> float:
            (found,) = await client.instances.list()
            return found.schedule.timeout.ToSeconds() if found.schedule.HasField("timeout") else 0

        daily = {"expression": "0 6 * * *"}
        assert await apply(cron=daily, timeout=3600) == []  # it is new
        assert await limit() == 3600
        assert await apply(cron=daily, timeout=90) == [FieldChange("schedule.timeout", 3600, 90)]
        assert await limit() == 90
        assert await apply(cron=daily) == [FieldChange("schedule.timeout", 90, None)]
        assert await limit() == 0


@pytest.mark.parametrize("seconds", [0, 0.5, -1, 2_592_001])
async def test_a_time_limit_out_of_its_range_is_refused_by_its_place_in_the_file(
    service: RunningInstanceService, seconds: float
) -> None:
    prices = {"definition_name": "sp500_prices", "config": {"as_of": "2021-12-31"}}
    instance = {"name": "p", "dataset": {"pipeline": prices}, "schedule": {"manual": {}, "timeout": seconds}}
    async with AsyncClient.connect(
        instance_address=service.app.server.address, token="development"
    ) as client:
        file = {"project": "desk", "manager": "m", "instances": [instance]}
        existing = await read_existing(client)
        with pytest.raises(OptaicError) as caught:
            [
                each
                async for each in execute(
                    client, make_plan(read_documents([file]), existing), existing, dry_run=True
                )
            ]
        assert [each.field for each in caught.value.violations] == [
            "documents[0].instances[0].schedule.timeout"
        ]
