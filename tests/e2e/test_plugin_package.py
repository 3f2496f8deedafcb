"""Another team ships a definition as an ordinary package: it is there, is instantiated, and computes."""

from optaic.run.v1 import run_pb2
from support.client import connected_client, create_dataset, create_project
from support.polling import PATIENCE
from support.stack import RunningStack


async def test_a_definition_of_an_installed_package_works_like_our_own(stack: RunningStack) -> None:
    async with connected_client(stack) as client:
        definition = await client.definitions.get(kind="pipeline", name="acme_ramp")
        assert definition.newest_version.code_ref == "acme_research.pipelines:Ramp"
        project = await create_project(client, "plugin")
        ramp = await create_dataset(client, project, "ramp", "acme_ramp", {"days": 5, "step": 2})
        run = await (await client.runs.submit(ramp)).wait(timeout=PATIENCE)
        assert run.status == run_pb2.RUN_STATUS_COMPLETED, run.error
        frame = await client.data.read(ramp, run.run_id)
        assert frame["close"].to_list() == [0, 2, 4, 6, 8]
        config = {"expression": "-ACME_GAP(-close, 2)"}
        gap = await create_dataset(
            client, project, "gap", "expression", config, upstreams={"input": ramp.instance_id}
        )
        run = await (await client.runs.submit(gap)).wait(timeout=PATIENCE)
        assert run.status == run_pb2.RUN_STATUS_COMPLETED, run.error
        frame = await client.data.read(gap, run.run_id)
        assert frame["value"].to_list() == [None, -2, -2, -2, -2]
