"""Answers about a flow with 20,000 stale flows above it fit into a message, and say what they leave out."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any

import grpc
import psycopg
import pytest
import pytest_asyncio

from bench.layered_graph import fill, instance_id
from devstack.postgres import Postgres
from lineage_service.store import closures
from optaic.common.v1 import flow_pb2
from optaic.lineage.v1 import lineage_service_pb2 as api
from optaic.lineage.v1.lineage_service_pb2_grpc import LineageServiceStub
from servicekit.pages import LONG_MOST_BYTES
from servicekit.status import from_rpc_error
from support.broker import NatsAccounts
from support.lineage_service import SERVICE_TOKEN, lineage_service
from support.postgres import admin_url

_WIDTH, _LAYERS = 200, 105
_SIZE = _WIDTH * _LAYERS
_MOST_BYTES = 16 * 2**20  # of a message, for a client of ours
_AS_SERVICE = (("authorization", f"Bearer {SERVICE_TOKEN}"), ("optaic-tenant", "default"))
_ALL_STALE = """
    update flows set is_fresh = false, stale_revision = 1, invalidated_run_number = 1, invalidated_reason = repeat('wrong ', 20)
"""
# Seven flows in the middle have never run.
_WITHOUT_OUTPUT = """
    update flows set version = 0, version_run_number = 0, run_number = 0, ended_run_number = 0, outcome_run_number = 0,
        completed_run_number = 0, outcome = 'never', last_run_id = null, last_run_time = null
    where flow_id in (select flow_id from flows order by flow_id offset 10000 limit 7)
"""


def _ref(number: int) -> flow_pb2.FlowRef:
    return flow_pb2.FlowRef(instance_id=instance_id(number), flow_kind=flow_pb2.FLOW_KIND_REFRESH)


_LAST = _ref(_SIZE - 1)


@dataclass
class _Large:
    """A service with the large graph, and a channel that takes what the service may send."""

    stub: Any
    above: int  # flows above the last one

    async def call(self, method: str, request: Any) -> Any:
        answer = await getattr(self.stub, method)(request, metadata=_AS_SERVICE, timeout=500)
        assert answer.ByteSize() < LONG_MOST_BYTES + 100_000
        return answer


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def large(postgres_server: Postgres, nats_accounts: NatsAccounts) -> AsyncIterator[_Large]:
    """Return the service with the large graph."""
    del postgres_server
    async with lineage_service(nats_accounts.take(), statement_timeout_seconds=300) as service:
        async with service.app.deps.database.infra() as connection:
            name = (await connection.exec_driver_sql("select current_database()")).scalar_one()
        await fill(admin_url(name), _SIZE, _WIDTH, spread=3, step=1)
        async with await psycopg.AsyncConnection.connect(admin_url(name), autocommit=True) as connection:
            await connection.execute("set session_replication_role = replica")
            for statement in (_ALL_STALE, _WITHOUT_OUTPUT, "vacuum analyze flows"):
                await connection.execute(statement.encode())
        options = [("grpc.max_receive_message_length", _MOST_BYTES)]
        async with grpc.aio.insecure_channel(service.app.server.address, options=options) as channel:
            above = await _all_upstreams(LineageServiceStub(channel), 10_000)
            assert len(above) > 20_000
            yield _Large(LineageServiceStub(channel), len(above))


async def _all_upstreams(stub: Any, page_size: int) -> list[str]:
    found: list[str] = []
    request = api.ListUpstreamsRequest(flow=_LAST, page_size=page_size)
    while True:
        page = await stub.ListUpstreams(request, metadata=_AS_SERVICE, timeout=500)
        assert page.ByteSize() < LONG_MOST_BYTES + 100_000
        found += [state.flow.instance_id for state in page.flows]
        request.page_token = page.next_page_token
        if not request.page_token:
            assert len(set(found)) == len(found)
            return found


@pytest.mark.asyncio(loop_scope="module")
async def test_admission_counts_all_that_block_and_lists_what_fits(large: _Large) -> None:
    answer = await large.call("CheckUpstreamFreshness", api.CheckUpstreamFreshnessRequest(flow=_LAST))
    assert not answer.all_ready
    assert (answer.blocking_count, answer.missing_input_count) == (large.above, 7)
    assert 1_000 < len(answer.blocking) <= 10_000
    assert [each.is_missing_input for each in answer.blocking[:8]] == [True] * 7 + [False]
    assert all(each.reason for each in answer.blocking)


@pytest.mark.asyncio(loop_scope="module")
async def test_admission_of_several_flows_is_refused_if_the_answers_do_not_fit(large: _Large) -> None:
    requests = [api.CheckUpstreamFreshnessRequest(flow=_ref(_SIZE - 1 - number)) for number in range(2)]
    with pytest.raises(grpc.aio.AioRpcError) as refusal:
        await large.call(
            "BatchCheckUpstreamFreshness", api.BatchCheckUpstreamFreshnessRequest(requests=requests)
        )
    error = from_rpc_error(refusal.value)
    assert (error.code, error.reason) == ("INVALID_ARGUMENT", "TOO_LARGE")
    assert "ask for fewer at once" in error.message


@pytest.mark.asyncio(loop_scope="module")
async def test_a_graph_says_that_it_does_not_contain_everything(large: _Large) -> None:
    answer = await large.call("GetLineageGraph", api.GetLineageGraphRequest(flow=_LAST))
    assert answer.is_truncated
    shown = {state.flow.instance_id for state in answer.flows}
    assert 1_000 < len(shown) <= 10_000
    assert answer.flows[0].flow == _LAST
    assert all({edge.upstream.instance_id, edge.downstream.instance_id} <= shown for edge in answer.edges)
    # What is shown is nearest, so each flow shown is followed by one that is shown too.
    assert {edge.upstream.instance_id for edge in answer.edges} == shown - {_LAST.instance_id}


@pytest.mark.asyncio(loop_scope="module")
async def test_an_explanation_says_that_there_are_more(large: _Large) -> None:
    answer = await large.call("ExplainStaleness", api.ExplainStalenessRequest(flow=_LAST))
    assert answer.is_truncated
    assert 100 < len(answer.explanations) <= 10_000
    assert answer.explanations[0].cause.origin == _LAST


@pytest.mark.asyncio(loop_scope="module")
async def test_pages_of_any_size_have_the_same_flows_in_the_same_order(large: _Large) -> None:
    whole = await _all_upstreams(large.stub, 10_000)
    assert await _all_upstreams(large.stub, 7_001) == whole


@pytest.mark.asyncio(loop_scope="module")
async def test_a_page_walks_no_farther_than_it_needs(large: _Large, monkeypatch: pytest.MonkeyPatch) -> None:
    walked: list[int] = []
    walk = closures.list_neighbours

    async def noting(*arguments: Any, **options: Any) -> dict[int, list[int]]:
        found = await walk(*arguments, **options)
        walked.append(len(found))
        return found

    monkeypatch.setattr(closures, "list_neighbours", noting)
    request = api.ListUpstreamsRequest(flow=_LAST, page_size=1_000)
    for read in (1_001, 2_001, 3_001):  # with the flow itself, and one that says whether there are more
        page = await large.call("ListUpstreams", request)
        assert len(page.flows) == 1_000
        assert walked.pop() <= read + 1
        assert not walked
        request.page_token = page.next_page_token
    await large.call("ListUpstreams", api.ListUpstreamsRequest(flow=_LAST, max_depth=1))
    assert walked.pop() <= 1_002


@pytest.mark.asyncio(loop_scope="module")
async def test_a_plan_with_more_flows_than_may_be_is_refused(large: _Large) -> None:
    request = api.PlanFlowsRequest(flows=[_LAST], include_upstream=True, max_flows=10_000)
    with pytest.raises(grpc.aio.AioRpcError) as refusal:
        await large.call("PlanFlows", request)
    error = from_rpc_error(refusal.value)
    assert (error.code, error.reason) == ("RESOURCE_EXHAUSTED", "TOO_MANY_FLOWS")
