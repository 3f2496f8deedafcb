"""A connected client and the small things that stories need again and again."""

import uuid
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any

from optaic.client import AsyncClient
from optaic.definition.v1 import definition_pb2
from optaic.instance.v1 import instance_pb2
from servicekit.auth import DEVELOPMENT_TOKEN
from support.plugins import SCHEMA
from support.stack import RunningStack


@asynccontextmanager
async def connected_client(stack: RunningStack, token: str = DEVELOPMENT_TOKEN) -> AsyncIterator[AsyncClient]:
    """Connect to a running stack; without another token as its developer, who belongs to the tenant `default`."""
    endpoints = stack.endpoints
    async with AsyncClient.connect(
        instance_address=endpoints.instance,
        run_address=endpoints.run,
        lineage_address=endpoints.lineage,
        status_address=endpoints.status,
        token=token,
    ) as client:
        yield client


async def create_project(client: AsyncClient, story: str) -> str:
    """Make a project of the story's own; answers its id."""
    return (await client.projects.create(f"{story}-{uuid.uuid4().hex[:8]}")).project_id


async def create_dataset(
    client: AsyncClient, project_id: str, name: str, definition: str, config: Mapping[str, Any], **more: Any
) -> instance_pb2.Instance:
    """Make a dataset and wait until it is paired."""
    instance = await client.instances.create(
        project=project_id,
        name=name,
        dataset={"pipeline": {"definition_name": definition, "config": config}},
        **more,
    )
    return await client.instances.wait_until_active(instance.instance_id)


async def publish_test_pipelines(client: AsyncClient) -> None:
    """Publish `slow` and `failing`; publishing again changes nothing."""
    for name, class_name in (("slow", "SlowPipeline"), ("failing", "FailingPipeline")):
        await client.definitions.publish(
            name=name,
            kind=definition_pb2.DEFINITION_KIND_PIPELINE,
            definition_version={
                "version": "1.0.0",
                "code_ref": f"support.plugins:{class_name}",
                "parameters_schema": SCHEMA,
                "flow_specs": [{"flow_kind": "FLOW_KIND_REFRESH", "is_default": True}],
            },
        )
