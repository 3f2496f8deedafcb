"""Bad input gets the right code and a typed reason that names the field, and leaves nothing behind."""

import asyncio
import uuid
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any

import grpc
import pytest

from optaic.client import AsyncClient
from optaic.errors import OptaicError
from optaic.instance.v1 import instance_pb2
from support.client import connected_client, create_dataset, create_project
from support.stack import RunningStack


@dataclass
class Scene:
    client: AsyncClient
    project_id: str
    prices: instance_pb2.Instance

    async def names(self) -> list[str]:
        return [instance.name for instance in await self.client.instances.list(project=self.project_id)]

    async def refusal(self, call: Any) -> OptaicError:
        """Make the call, see it refused, and see that no instance came or went."""
        before = await self.names()
        with pytest.raises(OptaicError) as refused:
            await call
        assert await self.names() == before
        return refused.value


@pytest.fixture
async def scene(stack: RunningStack) -> AsyncIterator[Scene]:
    async with connected_client(stack) as client:
        project_id = await create_project(client, "bad")
        prices = await create_dataset(client, project_id, "prices", "sp500_prices", {"symbols": ["AAPL"]})
        yield Scene(client, project_id, prices)


def dataset(definition: str, config: dict[str, Any]) -> dict[str, Any]:
    return {"pipeline": {"definition_name": definition, "config": config}}


async def test_unknown_ids(scene: Scene) -> None:
    unknown = str(uuid.uuid4())
    client = scene.client
    for call, reason in (
        (client.instances.get(unknown), "INSTANCE_NOT_FOUND"),
        (client.runs.get(unknown), "RUN_NOT_FOUND"),
        (client.runs.submit(unknown), "INSTANCE_NOT_FOUND"),
        (client.status.get(unknown), "INSTANCE_NOT_FOUND"),
        (client.lineage.explain(unknown), "FLOW_NOT_FOUND"),
        (
            client.instances.create(project=unknown, name="x", dataset=dataset("sp500_prices", {})),
            "PROJECT_NOT_FOUND",
        ),
    ):
        refused = await scene.refusal(call)
        assert (refused.code, refused.reason) == (grpc.StatusCode.NOT_FOUND, reason)


async def test_every_violation_of_a_config_is_listed_with_its_path(scene: Scene) -> None:
    refused = await scene.refusal(
        scene.client.instances.create(
            project=scene.project_id,
            name="x",
            dataset=dataset("sp500_prices", {"symbols": [1, "AAPL"], "as_of": "yesterday", "colour": "red"}),
        )
    )
    assert (refused.code, refused.reason) == (grpc.StatusCode.INVALID_ARGUMENT, "INVALID_CONFIG")
    fields = " ".join(violation.field for violation in refused.violations)
    assert "dataset.pipeline.config.symbols[0]" in fields
    assert "dataset.pipeline.config.as_of" in fields
    assert len(refused.violations) == 3


async def test_an_unknown_operator(scene: Scene) -> None:
    refused = await scene.refusal(
        scene.client.instances.create(
            project=scene.project_id,
            name="x",
            dataset=dataset("expression", {"expression": "ZSKORE(close)"}),
            upstreams={"input": scene.prices.instance_id},
        )
    )
    assert refused.code == grpc.StatusCode.INVALID_ARGUMENT
    assert refused.reason == "INVALID_EXPRESSION"
    assert "ZSKORE" in refused.violations[0].description


async def test_a_wrong_kind_of_upstream(scene: Scene) -> None:
    signal = await scene.client.instances.create(
        project=scene.project_id,
        name="signal",
        signal={"dataset": dataset("expression", {"expression": "close"})},
        upstreams={"input": scene.prices.instance_id},
    )
    backtest = await scene.client.instances.create(
        project=scene.project_id,
        name="backtest",
        backtest={"signals": {"primary": signal.instance_id}, "date_range": {"start": "2020-01-02"}},
    )
    refused = await scene.refusal(
        scene.client.instances.create(
            project=scene.project_id,
            name="x",
            dataset=dataset("expression", {"expression": "close"}),
            upstreams={"input": backtest.instance_id},
        )
    )
    assert (refused.code, refused.reason) == (grpc.StatusCode.INVALID_ARGUMENT, "WRONG_UPSTREAM_KIND")


async def test_a_duplicate_name_and_a_stale_etag(scene: Scene) -> None:
    refused = await scene.refusal(
        scene.client.instances.create(
            project=scene.project_id, name="prices", dataset=dataset("sp500_prices", {})
        )
    )
    assert (refused.code, refused.reason) == (grpc.StatusCode.ALREADY_EXISTS, "NAME_TAKEN")
    await scene.client.instances.update(scene.prices, {"description": "first"})
    stale = await scene.refusal(
        scene.client.instances.update(scene.prices, {"description": "second"}, etag=scene.prices.etag)
    )
    assert (stale.code, stale.reason) == (grpc.StatusCode.ABORTED, "ETAG_MISMATCH")


async def test_a_cycle_that_two_concurrent_edits_would_close(scene: Scene) -> None:
    first, second = [
        await create_dataset(
            scene.client,
            scene.project_id,
            name,
            "expression",
            {"expression": "close"},
            upstreams={"input": scene.prices.instance_id},
        )
        for name in ("first", "second")
    ]
    results = await asyncio.gather(
        scene.client.instances.update(
            first, {"upstream_refs": [{"resource_id": second.instance_id, "role": "input"}]}
        ),
        scene.client.instances.update(
            second, {"upstream_refs": [{"resource_id": first.instance_id, "role": "input"}]}
        ),
        return_exceptions=True,
    )
    refusals = [result for result in results if isinstance(result, BaseException)]
    assert len(refusals) == 1
    assert isinstance(refusals[0], OptaicError)
    assert (refusals[0].code, refusals[0].reason) == (grpc.StatusCode.FAILED_PRECONDITION, "CYCLE")


async def test_a_malformed_message(stack: RunningStack) -> None:
    async with grpc.aio.insecure_channel(stack.endpoints.run) as channel:
        call = channel.unary_unary("/optaic.run.v1.RunService/GetRun")
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await call(b"\x0a\xff\xff\xff", timeout=10)
    assert refused.value.code() == grpc.StatusCode.INVALID_ARGUMENT


async def test_a_wrong_token(stack: RunningStack) -> None:
    async with grpc.aio.insecure_channel(stack.endpoints.run) as channel:
        call = channel.unary_unary("/optaic.run.v1.RunService/ListRuns")
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await call(b"", timeout=10, metadata=(("authorization", "Bearer wrong"),))
    assert refused.value.code() == grpc.StatusCode.UNAUTHENTICATED
