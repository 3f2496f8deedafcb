"""Each tenant has a worker of its own, so that no tenant's runs are in the way of another's."""

from __future__ import annotations

import asyncio
import json
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

from optaic.client import AsyncClient, word
from optaic.definition.v1 import definition_pb2
from optaic.errors import InvalidArgumentError
from optaic.instance.v1.instance_pb2 import Instance
from optaic.run.v1 import run_pb2
from servicekit.token_files import digest_of
from support.client import connected_client, create_dataset, create_project, publish_test_pipelines
from support.polling import PATIENCE, eventually
from support.prefect_api import prefect_api
from support.stack import RunningStack, running_stack
from support.web import Answer, serving

ACME = "token-of-acmes-researcher"
_SLOW_RUNS = 6
_SLOW_SECONDS = 120  # longer than the other tenant needs; these runs are cancelled at the end


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningStack]:
    """Run a stack for two tenants."""
    state: Path = tmp_path_factory.mktemp("tenants") / "state"
    state.mkdir()
    roles = ["researcher", "maintainer"]
    tokens = {digest_of(ACME): {"tenant": "acme", "actor": "ada", "roles": roles}}
    (state / "tokens.json").write_text(json.dumps(tokens), encoding="utf-8")
    with running_stack(
        state, OPTAIC_TENANTS=json.dumps(["default", "acme"]), OPTAIC_CONCURRENCY="3"
    ) as running:
        yield running


async def test_slow_runs_of_one_tenant_do_not_delay_another(stack: RunningStack) -> None:
    """Attack: one tenant starts more slow runs than a worker executes at once."""
    assert {name for name in await asyncio.to_thread(stack.processes) if name.startswith("worker")} == {
        "worker-acme",
        "worker-default",
    }
    async with connected_client(stack, ACME) as acme, connected_client(stack) as default:
        for client in (acme, default):
            await publish_test_pipelines(client)
        theirs, ours = await create_project(acme, "slow"), await create_project(default, "quick")
        slow = await asyncio.gather(
            *(
                create_dataset(acme, theirs, f"slow-{number}", "slow", {"seconds": _SLOW_SECONDS})
                for number in range(_SLOW_RUNS)
            )
        )
        quick = await create_dataset(default, ours, "quick", "slow", {"value": 7})
        handles = [await acme.runs.submit(each) for each in slow]

        async def statuses() -> list[int]:
            return [(await acme.runs.get(handle.run_id)).status for handle in handles]

        async def is_busy() -> bool:
            return (await statuses()).count(run_pb2.RUN_STATUS_RUNNING) == 3

        await eventually(is_busy, 90, "the worker of acme does not execute three runs at once")
        run = await (await default.runs.submit(quick)).wait(timeout=PATIENCE)
        assert run.status == run_pb2.RUN_STATUS_COMPLETED, run.error
        after = await statuses()
        assert after.count(run_pb2.RUN_STATUS_RUNNING) == 3, "the slow runs were still there"
        assert after.count(run_pb2.RUN_STATUS_PENDING) == _SLOW_RUNS - 3, "and others waited for them"
        folder = stack.settings.root / "data"
        assert (folder / "default" / quick.instance_id).is_dir()
        assert not (folder / "acme" / quick.instance_id).exists()
        async with prefect_api(stack.endpoints.prefect_api, stack.endpoints.prefect_login) as prefect:
            for instance, tenant, pool in ((quick, "default", "optaic"), (slow[0], "acme", "optaic-acme")):
                name = f"optaic/{tenant}.{instance.instance_id}.refresh"
                deployment = await prefect.call("GET", f"/deployments/name/{name}")
                assert deployment["work_pool_name"] == pool
        for handle in handles:
            await handle.cancel()


WRITTEN = """
from pathlib import Path
Path({mark!r}).write_text("own code ran")
from optaic.plugins import Pipeline
class Own(Pipeline):
    def run(self, context):
        return None
"""


async def test_code_that_a_source_would_write_is_neither_written_nor_imported(
    stack: RunningStack, tmp_path: Path
) -> None:
    """Attack: have the worker cache a module from a web server, in a folder that it imports from; then name it as code."""
    mark, cache = tmp_path / "mark", tmp_path / "cache"
    cache.mkdir()
    module = f"written_{uuid.uuid4().hex}"
    code = WRITTEN.format(mark=str(mark))
    with serving(lambda _: Answer(code.encode())) as web:
        url = f"simplecache::{web.url}/{module}.py"
        config = {"url": url, "format": "csv", "storage_options": {"cache_storage": str(cache)}}
        async with connected_client(stack, ACME) as acme:
            project = await create_project(acme, "attack")
            # A definition of the attacker's own names the same code, and asks nothing of the config.
            await publish_pipeline(acme, "lax", "worker.builtin.typed_file_source:TypedFilePipeline")
            for definition in ("file", "lax"):
                with pytest.raises(InvalidArgumentError) as refused:
                    await create_dataset(acme, project, definition, definition, config)
                fields = {each.field for each in refused.value.violations}
                assert "instance.dataset.pipeline.config.url" in fields
            assert web.asked == []
            assert list(cache.iterdir()) == []
            # Even where the file got into a folder that the worker may read, it is no code.
            (cache / f"{module}.py").write_text(code, encoding="utf-8")
            for number, code_ref in enumerate((f"{module}:Own", f"{cache.name}.{module}:Own")):
                name = f"own-{number}"
                await publish_pipeline(acme, name.replace("-", "_"), code_ref)
                own = await create_dataset(acme, project, name, name.replace("-", "_"), {})
                assert await ends(acme, own) == ("FAILED", "PluginNotRegistered")
    assert not mark.exists()


async def publish_pipeline(client: AsyncClient, name: str, code_ref: str) -> None:
    await client.definitions.publish(
        name=name,
        kind=definition_pb2.DEFINITION_KIND_PIPELINE,
        definition_version={
            "version": "1.0.0",
            "code_ref": code_ref,
            "parameters_schema": {"type": "object"},
            "flow_specs": [{"flow_kind": "FLOW_KIND_REFRESH", "is_default": True}],
        },
    )


async def ends(client: AsyncClient, instance: Instance) -> tuple[str, str]:
    """Return how a run of an instance ends, and the type of its error."""
    run = await (await client.runs.submit(instance)).wait(timeout=60)
    return word(run, "status"), run.error.type
