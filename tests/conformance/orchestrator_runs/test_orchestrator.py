"""What run-service relies on, held by the fake and by Prefect alike."""

from __future__ import annotations

import asyncio
import uuid

import pytest

from run_service.ports import DeploymentMissingError, FlowRunRequest, FlowRunState
from support.orchestrator_runs import Ground


def _request() -> FlowRunRequest:
    return FlowRunRequest("default", str(uuid.uuid4()), "refresh", str(uuid.uuid4()), "prices-1")


async def _deployed(ground: Ground) -> FlowRunRequest:
    request = _request()
    await ground.deploy(request.tenant_id, request.instance_id, request.flow_kind)
    return request


async def test_a_server_that_is_there_answers(ground: Ground) -> None:
    await ground.orchestrator.ping()


async def test_without_a_deployment_nothing_is_created(ground: Ground) -> None:
    request = _request()
    with pytest.raises(DeploymentMissingError):
        await ground.orchestrator.create_flow_run(request)
    assert await ground.orchestrator.find_flow_run(request.run_id) is None
    await ground.deploy(request.tenant_id, request.instance_id, request.flow_kind)
    assert await ground.orchestrator.create_flow_run(request)


async def test_a_run_has_one_flow_run_however_often_it_is_asked_for(ground: Ground) -> None:
    request = await _deployed(ground)
    first = await ground.orchestrator.create_flow_run(request)
    assert await ground.orchestrator.create_flow_run(request) == first
    assert await ground.orchestrator.find_flow_run(request.run_id) == first
    assert str(uuid.UUID(first)) == first


async def test_runs_of_one_flow_are_told_apart(ground: Ground) -> None:
    request = await _deployed(ground)
    other = FlowRunRequest("default", request.instance_id, "refresh", str(uuid.uuid4()), "prices-2")
    ids = await asyncio.gather(*(ground.orchestrator.create_flow_run(each) for each in (request, other)))
    assert len(set(ids)) == 2
    assert await ground.orchestrator.get_states(ids) == dict.fromkeys(ids, FlowRunState.ACTIVE)


@pytest.mark.parametrize("state", sorted(set(FlowRunState) - {FlowRunState.ACTIVE}))
async def test_how_a_flow_run_ended_is_told(ground: Ground, state: FlowRunState) -> None:
    request = await _deployed(ground)
    flow_run_id = await ground.orchestrator.create_flow_run(request)
    await ground.end(flow_run_id, state)
    assert await ground.orchestrator.get_states([flow_run_id]) == {flow_run_id: state}
    await ground.orchestrator.cancel_flow_run(flow_run_id)
    assert await ground.orchestrator.get_states([flow_run_id]) == {flow_run_id: state}


async def test_a_waiting_flow_run_is_cancelled_at_once(ground: Ground) -> None:
    request = await _deployed(ground)
    flow_run_id = await ground.orchestrator.create_flow_run(request)
    for _ in range(2):
        await ground.orchestrator.cancel_flow_run(flow_run_id)
    states = await ground.orchestrator.get_states([flow_run_id])
    assert states == {flow_run_id: FlowRunState.CANCELLED}


async def test_a_deleted_flow_run_is_absent_and_can_be_made_again(ground: Ground) -> None:
    request = await _deployed(ground)
    flow_run_id = await ground.orchestrator.create_flow_run(request)
    await ground.delete(flow_run_id)
    assert await ground.orchestrator.get_states([flow_run_id]) == {}
    assert await ground.orchestrator.find_flow_run(request.run_id) is None
    await ground.orchestrator.cancel_flow_run(flow_run_id)
    again = await ground.orchestrator.create_flow_run(request)
    assert again != flow_run_id


async def test_a_deployment_made_anew_is_found_again(ground: Ground) -> None:
    request = await _deployed(ground)
    await ground.orchestrator.create_flow_run(request)
    await ground.deploy(request.tenant_id, request.instance_id, request.flow_kind)
    other = FlowRunRequest("default", request.instance_id, "refresh", str(uuid.uuid4()), "prices-2")
    assert await ground.orchestrator.create_flow_run(other)


async def test_no_ids_have_no_states(ground: Ground) -> None:
    assert await ground.orchestrator.get_states([]) == {}
