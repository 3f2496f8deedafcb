"""A dataset becomes a signal in place: nothing is computed, nothing becomes stale, and the contract holds from then on."""

import pytest

from optaic.apply.documents import read_documents
from optaic.apply.execution import read_existing
from optaic.apply.export import Definitions, export_documents
from optaic.apply.plan import make_plan
from optaic.client import AsyncClient, word
from optaic.errors import FailedPreconditionError
from optaic.instance.v1 import instance_pb2
from optaic.run.v1 import run_pb2
from support.client import connected_client, create_dataset, create_project
from support.polling import PATIENCE
from support.stack import RunningStack

PRICES = {"symbols": ["AAPL", "MSFT"], "start": "2020-01-02", "end": "2020-03-31"}
CHANGE = {"expression": "close / REF(close, 1) - 1"}


async def refresh(client: AsyncClient, instance: instance_pb2.Instance) -> run_pb2.Run:
    handle = await client.runs.submit(instance)
    run: run_pb2.Run = await handle.wait(timeout=PATIENCE)
    return run


async def state(client: AsyncClient, instance: instance_pb2.Instance) -> tuple[str, int]:
    """The word and the version, as status-service has them."""
    status = await client.status.get(instance)
    return word(status, "status"), status.flows[0].version


async def test_a_dataset_becomes_a_signal_in_place(stack: RunningStack) -> None:
    async with connected_client(stack) as client:
        project = await create_project(client, "promotion")
        prices = await create_dataset(client, project, "prices", "sp500_prices", PRICES)
        changes = await create_dataset(
            client, project, "changes", "expression", CHANGE, upstreams={"input": prices}
        )
        reader = await create_dataset(
            client, project, "reader", "expression", {"expression": "value"}, upstreams={"input": changes}
        )
        for instance in (prices, changes, reader):
            assert (await refresh(client, instance)).status == run_pb2.RUN_STATUS_COMPLETED

        strict = {"min_value": 0.0, "max_value": 0.01, "bounds_policy": "winsorize", "nan_policy": "drop"}
        with pytest.raises(FailedPreconditionError) as refused:
            await client.instances.promote_dataset(changes, strict)
        assert refused.value.reason == "CONTRACT_BROKEN"
        assert [violation.field for violation in refused.value.violations] == [
            "contract.nan_policy",
            "contract.min_value",
            "contract.max_value",
        ]
        assert await client.instances.get(changes) == changes

        promoted = await client.instances.promote_dataset(
            changes, {"min_value": -0.5, "max_value": 0.5}, reason="people rely on it"
        )
        assert (promoted.instance_id, word(promoted, "kind")) == (changes.instance_id, "SIGNAL")
        assert [await state(client, each) for each in (prices, changes, reader)] == [("READY", 1)] * 3
        assert word(await client.status.get(changes), "instance_kind") == "SIGNAL"
        assert len(await client.runs.list(changes)) == 1
        (found,) = await client.instances.list(project=project, kinds=["signal"])
        assert found.signal.contract.max_value == 0.5
        existing = await read_existing(client, {(await client.projects.get(project)).name}, None)
        documents = export_documents(existing, definitions=Definitions.NONE)
        assert [entry["name"] for entry in documents[0]["instances"] if "signal" in entry] == ["changes"]
        assert make_plan(read_documents(documents), existing) == []

        assert (await refresh(client, changes)).status == run_pb2.RUN_STATUS_COMPLETED
        assert [await state(client, each) for each in (changes, reader)] == [("READY", 1)] * 2
        wild = {"signal": {"dataset": {"pipeline": {"config": {"expression": "close"}}}}}
        await client.instances.update(changes, wild)
        assert await state(client, changes) == ("STALE", 1)
        failed = await refresh(client, changes)
        assert (failed.status, failed.error.type) == (run_pb2.RUN_STATUS_FAILED, "GuardrailViolated")
        assert await state(client, changes) == ("ERROR", 1)
