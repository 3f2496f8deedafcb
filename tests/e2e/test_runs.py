"""A researcher runs, cancels, fails, forces and retries."""

import pytest

from optaic.common.v1 import flow_pb2
from optaic.errors import OptaicError, UpstreamNotReadyError
from optaic.run.v1 import run_pb2
from support.client import connected_client, create_dataset, create_project, publish_test_pipelines
from support.polling import PATIENCE, eventually
from support.stack import RunningStack


async def test_a_running_run_is_cancelled_and_stays_so(stack: RunningStack) -> None:
    async with connected_client(stack) as client:
        await publish_test_pipelines(client)
        project = await create_project(client, "cancel")
        slow = await create_dataset(client, project, "slow", "slow", {"seconds": 60})
        handle = await client.runs.submit(slow)

        async def is_progressing() -> bool:
            run = await client.runs.get(handle.run_id)
            return run.status == run_pb2.RUN_STATUS_RUNNING and run.progress_pct > 0

        await eventually(is_progressing, 40, "no progress was reported")
        cancelled = await handle.cancel("changed my mind")
        assert cancelled.status == run_pb2.RUN_STATUS_CANCELLED

        async def status_is(word: flow_pb2.Status.ValueType) -> bool:
            return (await client.status.get(slow.instance_id)).status == word

        await eventually(lambda: status_is(flow_pb2.STATUS_NOT_INITIALIZED), 15)
        with pytest.raises(OptaicError) as refused:
            await handle.cancel("again")
        assert refused.value.reason == "RUN_ENDED"
        # The worker is free again for the next run.
        await client.instances.update(slow, {"dataset": {"pipeline": {"config": {"seconds": 0}}}})
        assert (
            await (await client.runs.submit(slow)).wait(timeout=PATIENCE)
        ).status == run_pb2.RUN_STATUS_COMPLETED


async def test_a_failed_run_reports_its_error_and_the_place(stack: RunningStack) -> None:
    async with connected_client(stack) as client:
        await publish_test_pipelines(client)
        project = await create_project(client, "fail")
        failing = await create_dataset(client, project, "failing", "failing", {"value": 3})
        run = await (await client.runs.submit(failing)).wait(timeout=PATIENCE)
        assert run.status == run_pb2.RUN_STATUS_FAILED
        assert run.error.type == "ArithmeticError"
        assert "cannot compute" in run.error.message
        assert run.error.trace_uri
        status = await eventually(lambda: client.status.get(failing.instance_id), 10)
        assert status.instance_id == failing.instance_id

        async def is_error() -> bool:
            return (await client.status.get(failing.instance_id)).status == flow_pb2.STATUS_ERROR

        await eventually(is_error, 15)
        activities = [activity.type for activity in await client.runs.activities(run.run_id)]
        assert activities[0] == "pipeline_run.submitted"
        assert activities[-1] == "pipeline_run.failed"


async def test_a_range_without_data_fails_the_run_with_a_typed_reason(stack: RunningStack) -> None:
    async with connected_client(stack) as client:
        project = await create_project(client, "empty")
        config = {"symbols": ["AAPL"], "start": "2030-01-01", "end": "2030-12-31"}
        prices = await create_dataset(client, project, "prices", "sp500_prices", config)
        run = await (await client.runs.submit(prices)).wait(timeout=PATIENCE)
        assert (run.status, run.error.type) == (run_pb2.RUN_STATUS_FAILED, "NoDataInRange")
        assert (await client.lineage.state(prices)).current_version.version == 0


async def test_force_runs_on_a_stale_input_and_is_recorded(stack: RunningStack) -> None:
    async with connected_client(stack) as client:
        await publish_test_pipelines(client)
        project = await create_project(client, "force")
        slow = await create_dataset(client, project, "slow", "slow", {"value": 1})
        derived = await create_dataset(
            client,
            project,
            "derived",
            "expression",
            {"expression": "close * 2"},
            upstreams={"input": slow.instance_id},
        )
        with pytest.raises(OptaicError) as missing:
            await client.runs.submit(derived, force=True, force_reason="no data yet")
        assert missing.value.reason == "MISSING_INPUT"
        await (await client.runs.submit(slow)).wait(timeout=PATIENCE)
        await client.instances.update(slow, {"dataset": {"pipeline": {"config": {"value": 2}}}})
        with pytest.raises(UpstreamNotReadyError):
            await client.runs.submit(derived)
        with pytest.raises(OptaicError) as unreasoned:
            await client.runs.submit(derived, force=True)
        assert unreasoned.value.reason == "FORCE_REASON_REQUIRED"
        run = await (await client.runs.submit(derived, force=True, force_reason="a look")).wait(
            timeout=PATIENCE
        )
        assert (run.status, run.forced, run.force_reason) == (run_pb2.RUN_STATUS_COMPLETED, True, "a look")
        # It read a stale input: its output is not current.
        assert (await client.lineage.state(derived)).is_fresh is False


async def test_unchanged_output_makes_no_new_version_and_leaves_dependants_fresh(stack: RunningStack) -> None:
    async with connected_client(stack) as client:
        await publish_test_pipelines(client)
        project = await create_project(client, "cutoff")
        slow = await create_dataset(client, project, "slow", "slow", {"value": 1, "seconds": 0})
        derived = await create_dataset(
            client,
            project,
            "derived",
            "expression",
            {"expression": "close"},
            upstreams={"input": slow.instance_id},
        )
        for instance in (slow, derived):
            await (await client.runs.submit(instance)).wait(timeout=PATIENCE)
        await client.instances.update(slow, {"dataset": {"pipeline": {"config": {"seconds": 0.1}}}})
        await (await client.runs.submit(slow)).wait(timeout=PATIENCE)

        async def is_fresh() -> bool:
            return (await client.lineage.state(derived)).is_fresh

        await eventually(is_fresh, 15, "equal content should have left the downstream fresh")
        assert (await client.lineage.state(slow)).current_version.version == 1
