"""Failed runs are tried again: on request, and by the instance's retry policy."""

import pytest

from optaic.common.v1 import flow_pb2
from optaic.instance.v1 import instance_pb2
from optaic.lineage.v1 import lineage_pb2
from optaic.run.v1 import run_pb2, run_service_pb2
from support.run_peers import Answer, flow_of, unavailable
from support.run_service import RunningRunService, refused


def _with_policy(service: RunningRunService, max_retries: int = 2) -> instance_pb2.Instance:
    instance = service.instances.add()
    instance.schedule.manual.SetInParent()
    policy = instance.schedule.retry_policy
    policy.max_retries = max_retries
    policy.delay.seconds = 30
    return instance


async def _fail(service: RunningRunService, run_id: str, kind: str = "ValueError") -> None:
    started = await service.start(run_id)
    await service.fail(run_id, started.fencing_token, kind)


async def _list(service: RunningRunService) -> list[run_pb2.Run]:
    response = await service.runs.ListRuns(run_service_pb2.ListRunsRequest())
    return list(response.runs)


async def test_a_retry_is_a_new_run(service: RunningRunService) -> None:
    instance = service.instances.add()
    first = await service.submit(instance, mode=run_pb2.RUN_MODE_FULL)
    request = run_service_pb2.RetryRunRequest(run_id=first.run_id, request_id="r")
    async with refused("RUN_NOT_ENDED"):
        await service.runs.RetryRun(request)
    await _fail(service, first.run_id)
    second = await service.runs.RetryRun(request)
    assert (second.attempt, second.run_number, second.retry_of_run_id) == (2, 2, first.run_id)
    assert second.trigger == run_pb2.RUN_TRIGGER_RETRY
    assert second.mode == run_pb2.RUN_MODE_FULL
    assert await service.runs.RetryRun(request) == second
    async with refused("RUN_ACTIVE"):
        await service.runs.RetryRun(run_service_pb2.RetryRunRequest(run_id=first.run_id))


async def test_failed_runs_are_retried_by_policy_until_it_is_used_up(service: RunningRunService) -> None:
    await service.submit(_with_policy(service, max_retries=2))
    for attempt in (1, 2, 3):
        run = (await _list(service))[0]
        assert run.attempt == attempt
        await _fail(service, run.run_id)
        await service.retrier.step()
        assert len(await _list(service)) == attempt  # not before its time
        service.clock.advance(30)
        await service.retrier.step()
    runs = await _list(service)
    assert [run.attempt for run in runs] == [3, 2, 1]
    assert runs[0].retry_of_run_id == runs[1].run_id
    assert runs[0].actor == "retry"


@pytest.mark.parametrize("kind", ["TIMED_OUT", "LIMIT_EXCEEDED"])
async def test_a_run_that_reached_a_limit_is_retried_like_any_failed_one(
    service: RunningRunService, kind: str
) -> None:
    instance = _with_policy(service, max_retries=1)
    instance.schedule.timeout.seconds = 60
    first = await service.submit(instance)
    await _fail(service, first.run_id, kind)
    assert (await service.get(first.run_id)).error.type == kind
    await service.retrier.step()
    assert len(await _list(service)) == 1  # not before its time
    service.clock.advance(30)
    await service.retrier.step()
    second, _ = await _list(service)
    assert (second.attempt, second.retry_of_run_id, second.actor) == (2, first.run_id, "retry")
    await _fail(service, second.run_id, kind)
    service.clock.advance(30)
    await service.retrier.step()
    assert len(await _list(service)) == 2  # the policy is used up


async def test_a_retry_refused_at_the_gate_is_recorded(service: RunningRunService) -> None:
    instance = _with_policy(service)
    first = await service.submit(instance)
    await _fail(service, first.run_id)
    blocking = lineage_pb2.BlockingFlow(
        flow=flow_of(instance), instance_name="x", status=flow_pb2.STATUS_STALE
    )
    service.lineage.answer = lambda _: Answer(blocking=[blocking])
    service.clock.advance(30)
    await service.retrier.step()
    await service.retrier.step()
    refused_run, _ = await _list(service)
    assert refused_run.status == run_pb2.RUN_STATUS_CANCELLED
    assert refused_run.error.type == "UPSTREAM_NOT_READY"
    assert refused_run.retry_of_run_id == first.run_id


async def test_an_undecided_retry_is_tried_again(service: RunningRunService) -> None:
    first = await service.submit(_with_policy(service))
    await _fail(service, first.run_id)
    ready, service.lineage.answer = service.lineage.answer, unavailable
    service.clock.advance(30)
    await service.retrier.step()
    assert len(await _list(service)) == 1
    service.lineage.answer = ready
    service.clock.advance(61)
    await service.retrier.step()
    assert len(await _list(service)) == 2


async def test_a_flow_that_was_run_again_meanwhile_is_not_retried(service: RunningRunService) -> None:
    instance = _with_policy(service)
    first = await service.submit(instance)
    await _fail(service, first.run_id)
    second = await service.submit(instance)
    started = await service.start(second.run_id)
    await service.complete(second.run_id, started.fencing_token)
    service.clock.advance(30)
    await service.retrier.step()
    assert len(await _list(service)) == 2
    assert (await service.submit(instance)).run_number == 3


async def test_a_retry_by_hand_replaces_the_one_that_was_to_come(service: RunningRunService) -> None:
    first = await service.submit(_with_policy(service))
    await _fail(service, first.run_id)
    await service.runs.RetryRun(run_service_pb2.RetryRunRequest(run_id=first.run_id))
    service.clock.advance(30)
    await service.retrier.step()
    assert len(await _list(service)) == 2


async def test_cancelled_runs_are_not_retried(service: RunningRunService) -> None:
    run = await service.submit(_with_policy(service))
    await service.cancel(run.run_id)
    service.clock.advance(30)
    await service.retrier.step()
    assert len(await _list(service)) == 1
