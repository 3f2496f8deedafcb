"""What run-service relies on, held by the fake and by Prefect alike."""

from __future__ import annotations

import asyncio
import uuid
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from run_service.domain.log_lines import LogLine, moment_of
from run_service.domain.pairing import TERMINAL, UNDER_WAY, FlowRunState
from run_service.ports import DeploymentMissingError, FlowRunRequest
from support.orchestrator_runs import Ground


def _request() -> FlowRunRequest:
    return FlowRunRequest("default", str(uuid.uuid4()), "refresh", str(uuid.uuid4()), "prices-1")


async def _deployed(ground: Ground) -> FlowRunRequest:
    request = _request()
    await ground.deploy(request.tenant_id, request.instance_id, request.flow_kind)
    return request


async def _create(ground: Ground, request: FlowRunRequest) -> str:
    return (await ground.orchestrator.create_flow_run(request)).flow_run_id


async def test_a_server_that_is_there_answers(ground: Ground) -> None:
    await ground.orchestrator.ping()


async def test_without_a_deployment_nothing_is_created(ground: Ground) -> None:
    request = _request()
    with pytest.raises(DeploymentMissingError):
        await _create(ground, request)
    assert await ground.orchestrator.find_flow_run(request.run_id) is None
    await ground.deploy(request.tenant_id, request.instance_id, request.flow_kind)
    assert await _create(ground, request)


async def test_a_run_has_one_flow_run_however_often_it_is_asked_for(ground: Ground) -> None:
    request = await _deployed(ground)
    first = await _create(ground, request)
    assert await _create(ground, request) == first
    assert await ground.orchestrator.find_flow_run(request.run_id) == first
    assert str(uuid.UUID(first)) == first


@pytest.mark.parametrize("state", FlowRunState)
async def test_a_flow_run_is_said_to_be_in_its_queue_while_it_waits(
    ground: Ground, state: FlowRunState
) -> None:
    request = await _deployed(ground)
    created = await ground.orchestrator.create_flow_run(request)
    assert str(uuid.UUID(created.queue_id)) == created.queue_id
    await ground.set(created.flow_run_id, state)
    again = await ground.orchestrator.create_flow_run(request)
    assert again.flow_run_id == created.flow_run_id
    assert again.queue_id == (created.queue_id if state is FlowRunState.WAITING else "")


async def test_runs_of_one_flow_are_distinguished(ground: Ground) -> None:
    request = await _deployed(ground)
    other = FlowRunRequest("default", request.instance_id, "refresh", str(uuid.uuid4()), "prices-2")
    ids = await asyncio.gather(*(_create(ground, each) for each in (request, other)))
    assert len(set(ids)) == 2
    assert await ground.orchestrator.get_states(ids) == dict.fromkeys(ids, FlowRunState.WAITING)


@pytest.mark.parametrize("state", FlowRunState)
async def test_the_state_of_a_flow_run_is_returned(ground: Ground, state: FlowRunState) -> None:
    request = await _deployed(ground)
    flow_run_id = await _create(ground, request)
    await ground.set(flow_run_id, state)
    assert await ground.orchestrator.get_states([flow_run_id]) == {flow_run_id: state}


@pytest.mark.parametrize("wanted", sorted(TERMINAL - {FlowRunState.CRASHED}))
async def test_a_flow_run_ends_as_it_has_to_however_it_is(ground: Ground, wanted: FlowRunState) -> None:
    request = await _deployed(ground)
    flow_run_id = await _create(ground, request)
    for state in FlowRunState:
        await ground.set(flow_run_id, state)
        for _ in range(2):
            await ground.orchestrator.end_flow_run(flow_run_id, wanted, "why")
        assert await ground.orchestrator.get_states([flow_run_id]) == {flow_run_id: wanted}


async def test_an_ended_flow_run_can_be_started_again(ground: Ground) -> None:
    """So an end is compared for a while after it was set."""
    flow_run_id = await _create(ground, await _deployed(ground))
    await ground.orchestrator.end_flow_run(flow_run_id, FlowRunState.FAILED, "why")
    await ground.set(flow_run_id, FlowRunState.RUNNING)
    states = await ground.orchestrator.get_states([flow_run_id])
    assert states == {flow_run_id: FlowRunState.RUNNING}


async def test_the_second_flow_run_of_a_run_is_another_one(ground: Ground) -> None:
    request = await _deployed(ground)
    first = await _create(ground, request)
    again = replace(request, number=2)
    second = await _create(ground, again)
    assert second != first
    assert await _create(ground, again) == second
    assert await ground.orchestrator.find_flow_run(again.key) == second
    assert await ground.orchestrator.find_flow_run(request.key) == first


@pytest.mark.parametrize("state", FlowRunState)
async def test_active_flow_runs_are_listed_regardless_of_their_creator(
    ground: Ground, state: FlowRunState
) -> None:
    request = await _deployed(ground)
    made = await _create(ground, request)
    scheduled = await ground.schedule(request.tenant_id, request.instance_id, request.flow_kind)
    for flow_run_id in (made, scheduled):
        await ground.set(flow_run_id, state)
    listed = [
        each for each in await ground.orchestrator.list_under_way() if each.instance_id == request.instance_id
    ]
    assert {(each.flow_run_id, each.run_id) for each in listed} == (
        {(made, request.run_id), (scheduled, "")} if state in UNDER_WAY else set()
    )
    assert all(
        (each.tenant_id, each.flow_kind, each.state) == ("default", "refresh", state) for each in listed
    )
    assert all(each.scheduled_time.tzinfo is not None for each in listed)


@pytest.mark.parametrize("state", FlowRunState)
async def test_cancelled_flow_runs_without_a_run_are_listed(ground: Ground, state: FlowRunState) -> None:
    request = await _deployed(ground)
    begin = datetime.now(UTC) - timedelta(minutes=1)
    made = await _create(ground, request)
    waiting = await ground.schedule(request.tenant_id, request.instance_id, request.flow_kind)
    for flow_run_id in (made, waiting):
        await ground.set(flow_run_id, state)
    listed = [
        each
        for each in await ground.orchestrator.list_cancelled(begin)
        if each.instance_id == request.instance_id
    ]
    wanted = [(waiting, FlowRunState.CANCELLED)] if state is FlowRunState.CANCELLED else []
    assert [(each.flow_run_id, each.state) for each in listed] == wanted


async def test_a_deleted_flow_run_is_absent_and_can_be_made_again(ground: Ground) -> None:
    request = await _deployed(ground)
    flow_run_id = await _create(ground, request)
    await ground.delete(flow_run_id)
    assert await ground.orchestrator.get_states([flow_run_id]) == {}
    assert await ground.orchestrator.find_flow_run(request.run_id) is None
    await ground.orchestrator.end_flow_run(flow_run_id, FlowRunState.CANCELLED, "why")
    again = await _create(ground, request)
    assert again != flow_run_id


async def test_a_recreated_deployment_is_found(ground: Ground) -> None:
    request = await _deployed(ground)
    await _create(ground, request)
    await ground.deploy(request.tenant_id, request.instance_id, request.flow_kind)
    other = FlowRunRequest("default", request.instance_id, "refresh", str(uuid.uuid4()), "prices-2")
    assert await _create(ground, other)


async def test_no_ids_have_no_states(ground: Ground) -> None:
    assert await ground.orchestrator.get_states([]) == {}


async def _read(ground: Ground, flow_run_id: str, **given: Any) -> list[str]:
    wanted = {"start": moment_of(0), "end": None, "min_level": 0, "limit": 1000} | given
    return [line.message for line in await ground.orchestrator.list_log_lines(flow_run_id, **wanted)]


async def test_a_log_is_read_in_order_of_time_by_level_and_limit(ground: Ground) -> None:
    flow_run_id = await _create(ground, await _deployed(ground))
    other = await _create(ground, await _deployed(ground))
    lines = [LogLine(10**15 + number, 10 * (number % 5 + 1), "stdout", str(number)) for number in range(450)]
    await ground.log(other, LogLine(10**15, 50, "stdout", "of another flow run"))
    await ground.log(flow_run_id, *lines[300:])
    await ground.log(flow_run_id, *lines[:300])
    assert await _read(ground, flow_run_id) == [line.message for line in lines]
    assert (
        await ground.orchestrator.list_log_lines(
            flow_run_id, start=moment_of(10**15 + 7), end=moment_of(10**15 + 9), min_level=0, limit=5
        )
        == lines[7:9]
    )
    assert await _read(ground, flow_run_id, min_level=40, limit=3) == ["3", "4", "8"]
    assert len(await _read(ground, flow_run_id, limit=401)) == 401
    assert await _read(ground, str(uuid.uuid4())) == []


async def test_a_log_has_any_text(ground: Ground) -> None:
    flow_run_id = await _create(ground, await _deployed(ground))
    texts = ["", "ä 漢 🚀", "two\nlines", "x" * 16_000, "\x1b[31mred\r"]
    await ground.log(flow_run_id, *(LogLine(10**15 + n, 20, "a.b", text) for n, text in enumerate(texts)))
    assert await _read(ground, flow_run_id) == texts
