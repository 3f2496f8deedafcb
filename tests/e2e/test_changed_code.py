"""A plugin that is edited under the same version does not run, until somebody says that it means the same."""

from pathlib import Path

from optaic.client import AsyncClient
from optaic.instance.v1 import instance_pb2
from optaic.run.v1 import run_pb2
from support.client import connected_client, create_dataset, create_project
from support.polling import PATIENCE
from support.stack import RunningStack

SOURCE = '''
import datetime as dt
import polars as pl
from optaic.plugins import Pipeline

class Drift(Pipeline):
    """Counts with whole numbers."""

    def run(self, context):
        dates = [dt.date(2024, 1, 1 + day) for day in range(context.config["days"])]
        return pl.DataFrame({"date": dates, "entity": ["A"] * len(dates), "value": [STEP * i for i in range(len(dates))]})
'''
SCHEMA = {"type": "object", "properties": {"days": {"type": "integer"}}, "additionalProperties": False}


def write(module: Path, step: int) -> None:
    module.write_text(SOURCE.replace("STEP", f"{step}.0"), encoding="utf-8")


async def refresh(client: AsyncClient, instance: instance_pb2.Instance) -> run_pb2.Run:
    return await (await client.runs.submit(instance)).wait(timeout=PATIENCE)


async def test_edited_code_is_refused_until_it_is_accepted(stack: RunningStack) -> None:
    module = stack.settings.root.with_name(f"{stack.settings.root.name}-packages") / "acme_drift.py"
    write(module, step=1)
    async with connected_client(stack) as client:
        content = {"version": "1.0.0", "code_ref": "acme_drift:Drift", "parameters_schema": SCHEMA}
        version = await client.definitions.publish("acme_drift", "pipeline", content)
        project = await create_project(client, "changed-code")
        drift = await create_dataset(client, project, "drift", "acme_drift", {"days": 3})
        first = await refresh(client, drift)
        assert first.status == run_pb2.RUN_STATUS_COMPLETED, first.error

        write(module, step=20)
        refused = await refresh(client, drift)
        assert (refused.status, refused.error.type) == (run_pb2.RUN_STATUS_FAILED, "CODE_CHANGED")
        (code,) = [each for each in first.code if each.definition_name == "acme_drift"]
        assert {each.distribution for each in first.code if each.is_builtin} == {"optaic"}
        (changed,) = [each for each in refused.code if each.expected_hash]
        assert changed.expected_hash == code.hash
        assert changed.hash in refused.error.message
        assert (await client.data.read(drift))["value"].to_list() == [0, 1, 2]

        await client.definitions.accept_code(version.definition_version_id, changed.hash, "the vendor's unit")
        third = await refresh(client, drift)
        assert third.status == run_pb2.RUN_STATUS_COMPLETED, third.error
        assert (await client.data.read(drift))["value"].to_list() == [0, 20, 40]
        numbers = [
            each.number for each in await client.definitions.code_hashes(version.definition_version_id)
        ]
        assert numbers == [2, 1]
