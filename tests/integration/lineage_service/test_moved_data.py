"""Moved data: all answers name the new place, those about the past too, and nothing else of a flow changes."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from lineage_service import conversion
from lineage_service.domain.keys import FlowKey
from lineage_service.domain.runs import Phase, RunFact
from lineage_service.domain.snapshots import EdgeSpec, FlowSpec, Snapshot
from lineage_service.use_cases import moving, reading
from optaic.lineage.v1.lineage_pb2 import FlowState
from optaic.lineage.v1.lineage_service_pb2 import AsOf, GetFlowStateRequest, MoveDataRootRequest
from servicekit.context import RequestContext
from servicekit.database import Database
from servicekit.ids import new_id
from support.clock import FakeClock
from support.lineage_service import Lineage, lineage_database, new_tenant
from support.lineage_world import START

FILES, STORE = "file:///data", "s3://bucket/p"


@pytest.fixture
async def database(postgres_server: object) -> AsyncIterator[Database]:
    del postgres_server
    async with lineage_database() as opened:
        yield opened


async def _add(lineage: Lineage, uri: str, key: FlowKey | None = None, number: int = 1) -> FlowKey:
    """Add a flow, or give it a new version, whose data is recorded at a URI."""
    if key is None:
        key = FlowKey(new_id(), "refresh")
        flow = FlowSpec(key.flow_kind, "a", ())
        await lineage.apply([Snapshot(key.instance_id, 1, "flow", 1, (flow,), event_id=new_id())])
    fact = RunFact(
        key, new_id(), number, Phase.COMPLETED, START, fingerprint="a", digest=f"d{number}", uri=uri, event_id=new_id()
    )  # fmt: skip
    await lineage.apply([fact])
    return key


async def _state(lineage: Lineage, key: FlowKey, revision: int = 0) -> FlowState:
    request = GetFlowStateRequest(flow=conversion.flow_ref(*key))
    if revision:
        request.as_of.CopyFrom(AsOf(revision=revision))
    return await reading.get_flow_state(lineage.deps, lineage.tenant_id, request)


async def _move(lineage: Lineage, from_root: str, to_root: str, request_id: str = "") -> None:
    request = MoveDataRootRequest(from_root=from_root, to_root=to_root, request_id=request_id)
    context = RequestContext(lineage.tenant_id, "run-service", "1", "")
    await moving.move_data_root(lineage.deps, context, request)


async def test_a_moved_version_differs_in_its_place_only(database: Database) -> None:
    lineage = Lineage(database, new_tenant(), FakeClock())
    place = f"{lineage.tenant_id}/i/refresh/data"
    key = await _add(lineage, f"{FILES}/{place}")
    elsewhere = await _add(lineage, "/elsewhere/prices.parquet")
    before, other, revision = (
        await _state(lineage, key),
        await _state(lineage, elsewhere),
        await lineage.revision(),
    )
    messages = await lineage.messages()
    await _move(lineage, FILES, STORE, "r")
    await _move(lineage, FILES, STORE, "r")
    after = await _state(lineage, key)
    assert after.current_version.uri == f"{STORE}/{place}"
    after.current_version.uri = before.current_version.uri
    assert after == before
    assert await _state(lineage, elsewhere) == other
    assert await lineage.revision() == revision
    assert await lineage.messages() == messages, "nobody is told of a change"
    assert await lineage.recompute() == []
    await _move(lineage, STORE, FILES)
    assert await _state(lineage, key) == before


async def test_an_event_of_before_the_move_that_comes_late_names_the_new_place(database: Database) -> None:
    lineage = Lineage(database, new_tenant(), FakeClock())
    place = f"{lineage.tenant_id}/i/refresh/data"
    await _move(lineage, FILES, STORE)
    key = await _add(lineage, f"{FILES}/{place}")
    assert (await _state(lineage, key)).current_version.uri == f"{STORE}/{place}"


async def test_the_past_is_read_at_the_new_place(database: Database) -> None:
    lineage = Lineage(database, new_tenant(), FakeClock())
    place = f"{lineage.tenant_id}/i/refresh/data"
    key = await _add(lineage, f"{FILES}/{place}")
    revision = await lineage.revision()
    await _add(lineage, f"{FILES}/{place}", key, 2)
    await _move(lineage, FILES, STORE)
    then = await _state(lineage, key, revision)
    assert (then.current_version.uri, then.current_version.digest) == (f"{STORE}/{place}", "d1")


async def test_a_run_is_admitted_on_the_inputs_and_the_base_at_the_new_place(database: Database) -> None:
    lineage = Lineage(database, new_tenant(), FakeClock())
    above = await _add(lineage, f"{FILES}/{lineage.tenant_id}/a/refresh/data")
    key = FlowKey(new_id(), "refresh")
    flow = FlowSpec(key.flow_kind, "a", (EdgeSpec(above, "input", 1),))
    await lineage.apply([Snapshot(key.instance_id, 1, "below", 1, (flow,), event_id=new_id())])
    await _add(lineage, f"{FILES}/{lineage.tenant_id}/b/refresh/data", key)
    await _move(lineage, FILES, STORE)
    answer = await lineage.check(key)
    places = [answer.admission.flow.uri, *(flow.uri for flow, _ in answer.admission.direct)]
    folders = [f"{STORE}/{lineage.tenant_id}/{name}/refresh/data" for name in ("b", "a")]
    assert places == folders


async def test_another_tenant_is_not_moved(database: Database) -> None:
    moved, other = Lineage(database, new_tenant(), FakeClock()), Lineage(database, new_tenant(), FakeClock())
    key = await _add(other, f"{FILES}/{other.tenant_id}/i/refresh/data")
    before = await _state(other, key)
    await _move(moved, FILES, STORE)
    assert await _state(other, key) == before
