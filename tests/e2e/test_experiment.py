"""A researcher previews macros and operators, moves the data below them, and looks at what is stale and why."""

import polars as pl
import pytest

from optaic.client import AsyncClient, RunHandle
from optaic.common.v1 import flow_pb2
from optaic.instance.v1 import instance_pb2
from optaic.lineage.v1 import lineage_pb2
from optaic.run.v1 import run_pb2
from support.client import connected_client, create_dataset, create_project
from support.polling import PATIENCE, eventually
from support.stack import RunningStack


async def execute(client: AsyncClient, instance: instance_pb2.Instance) -> RunHandle:
    handle = await client.runs.submit(instance)
    run = await handle.wait(timeout=PATIENCE)
    assert run.status == run_pb2.RUN_STATUS_COMPLETED, run.error
    return handle


async def wait_for(
    client: AsyncClient, instance: instance_pb2.Instance, status: flow_pb2.Status.ValueType
) -> None:
    async def is_there() -> bool:
        return bool((await client.status.get(instance.instance_id)).status == status)

    await eventually(is_there, 20, f"{instance.name} does not become {status}")


async def list_causes(client: AsyncClient, instance: instance_pb2.Instance) -> set[int]:
    answer = await client.lineage.explain(instance)
    return {explanation.cause.kind for explanation in answer.explanations}


async def test_an_experiment_is_ready_until_something_below_it_moves(stack: RunningStack) -> None:
    async with connected_client(stack) as client:
        project = await create_project(client, "experiment")
        config = {"symbols": ["AAPL", "AMD", "BAC", "BBY", "CVX", "GE"], "as_of": "2020-12-31"}
        prices = await create_dataset(client, project, "prices", "sp500_prices", config)
        await execute(client, prices)
        experiment = await client.instances.create(
            project=project,
            name="momentum",
            experiment={"date_range": {"start": "2020-01-02"}, "universe": ["AAPL", "GE"]},
            definition_name="MOMENTUM",
            config={"x": "close", "long": 252, "short": 21},
            upstreams={"input": prices, "prices": prices},
        )
        handle = await execute(client, experiment)
        await wait_for(client, experiment, flow_pb2.STATUS_READY)
        shown = await handle.artifact("preview")
        assert shown.columns == ["date", "entity", "value"]
        assert set(shown["entity"]) == {"AAPL", "GE"}
        assert (shown["date"].dt.year() == 2020).all()
        assert (await handle.artifact("preview_sample")).equals(shown)
        assert (await client.data.read(experiment)).equals(shown)
        result, metrics = handle.run.experiment, handle.metrics
        assert result.row_count == metrics["row_count"] == shown.height
        assert result.mean == metrics["mean"] == pytest.approx(shown["value"].mean())
        assert metrics["ic_dates_21"] == shown["date"].n_unique() - 21
        assert metrics["quintile_returns_1"] == [None] * 5  # there are two entities
        assert {pin.role for pin in handle.run.input_versions} == {"input", "prices"}
        # A universe of its own is another result; so are later prices.
        changed = await client.instances.update(experiment, {"experiment": {"universe": []}})
        await wait_for(client, experiment, flow_pb2.STATUS_STALE)
        assert await list_causes(client, experiment) == {lineage_pb2.CAUSE_KIND_OWN_CONFIG}
        handle = await execute(client, changed)
        await wait_for(client, experiment, flow_pb2.STATUS_READY)
        assert (await handle.artifact("preview"))["entity"].n_unique() == 6
        await client.instances.update(prices, {"dataset": {"pipeline": {"config": {"as_of": "2021-12-31"}}}})
        await execute(client, prices)
        await wait_for(client, experiment, flow_pb2.STATUS_STALE)
        assert await list_causes(client, experiment) == {lineage_pb2.CAUSE_KIND_UPSTREAM_MOVED}
        handle = await execute(client, changed)
        await wait_for(client, experiment, flow_pb2.STATUS_READY)
        assert handle.metrics["last_date"] == "2021-12-31"


async def test_an_operator_of_another_package_is_previewed(stack: RunningStack) -> None:
    async with connected_client(stack) as client:
        project = await create_project(client, "gap")
        ramp = await create_dataset(client, project, "ramp", "acme_ramp", {"days": 5, "step": 2})
        await execute(client, ramp)
        gap = await client.instances.create(
            project=project,
            name="gap",
            experiment={},
            definition_name="ACME_GAP",
            config={"x": "-close"},
            upstreams={"input": ramp},
        )
        handle = await execute(client, gap)
        shown = await handle.artifact("preview")
        assert shown["value"].to_list() == [None, 2, 2, 2, 2]
        assert handle.run.experiment.nan_share == 0.2
        assert {code.definition_name for code in handle.run.code} >= {"ACME_GAP"}


async def test_a_preview_of_nothing_says_which_field_to_change(stack: RunningStack) -> None:
    async with connected_client(stack) as client:
        project = await create_project(client, "nothing")
        ramp = await create_dataset(client, project, "ramp", "acme_ramp", {"days": 5, "step": 2})
        await execute(client, ramp)
        experiment = await client.instances.create(
            project=project,
            name="nothing",
            experiment={"universe": ["NOBODY"]},
            definition_name="RANK",
            config={"x": "close"},
            upstreams={"input": ramp},
        )
        run = await (await client.runs.submit(experiment)).wait(timeout=PATIENCE)
        assert (run.status, run.error.type) == (run_pb2.RUN_STATUS_FAILED, "UnknownEntity")
        assert run.error.message.startswith("experiment.universe: the inputs have none of NOBODY")
        await wait_for(client, experiment, flow_pb2.STATUS_ERROR)
        universe = await client.instances.update(experiment, {"experiment": {"universe": ["ACME"]}})
        handle = await execute(client, universe)
        assert isinstance(await handle.artifact("preview"), pl.DataFrame)
        await wait_for(client, experiment, flow_pb2.STATUS_READY)
