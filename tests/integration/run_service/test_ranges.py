"""Runs of a range of dates, and runs that may delete: what is admitted, refused and recorded."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from google.protobuf.json_format import MessageToDict
from google.protobuf.struct_pb2 import Struct

from optaic.common.v1 import flow_pb2
from optaic.run.v1 import run_pb2, run_service_pb2
from run_service.store.comparison import list_numbers_of_flows
from support.run_peers import REFRESH, Answer, Check, flow_of
from support.run_service import RunningRunService, refused

NOW, BEFORE = "f" * 64, "e" * 64  # the fingerprint of the stub's flows, and another one


def _dates(**dates: str) -> Struct:
    parameters = Struct()
    parameters.update(dates)
    return parameters


def _computed_with(fingerprint: str, **fields: Any) -> Answer:
    base = flow_pb2.VersionRef(version=1, uri="file:///x", compute_fingerprint=fingerprint, **fields)
    return Answer(all_ready=True, base_version=base)


def _always(answer: Answer) -> Callable[[Check], Answer]:
    return lambda _: answer


async def _complete(service: RunningRunService, run: run_pb2.Run, **fields: Any) -> run_pb2.Run:
    started = await service.start(run.run_id)
    return await service.complete(run.run_id, started.fencing_token, **fields)


async def test_a_run_reports_whether_it_computes_only_a_range_of_dates(service: RunningRunService) -> None:
    for dates, is_partial in (
        ({"start": "2024-01-02"}, True),
        ({"end": "2024-01-02"}, True),
        ({"start": "2024-01-02", "end": "2024-01-03", "data_date": "2024-01-03"}, True),
        ({"data_date": "2024-01-03"}, False),
        ({}, False),
    ):
        run = await service.submit(service.instances.add(), parameters=_dates(**dates))
        assert run.is_partial_range is is_partial
        assert (await service.get(run.run_id)).is_partial_range is is_partial
        assert (await _complete(service, run)).is_partial_range is is_partial


async def test_a_range_is_refused_after_the_configuration_changed(service: RunningRunService) -> None:
    instance = service.instances.add()
    service.lineage.answer = lambda _: _computed_with(BEFORE)
    for fields in ({}, {"validate_only": True}, {"force": True, "force_reason": "now"}):
        for dates in ({"start": "2024-01-02"}, {"end": "2024-01-02"}):
            async with refused("FULL_RANGE_REQUIRED") as refusals:
                await service.submit(instance, parameters=_dates(**dates), **fields)
            assert refusals[0].code == "FAILED_PRECONDITION"
            assert instance.name in refusals[0].message
            assert "without start and end" in refusals[0].message
    assert not (await service.runs.ListRuns(run_service_pb2.ListRunsRequest())).runs
    assert await service.outbox_types() == []
    assert not (await service.submit(instance, parameters=_dates(data_date="2024-01-02"))).is_partial_range


async def test_a_range_is_admitted_where_nothing_changed_and_where_there_is_nothing_yet(
    service: RunningRunService,
) -> None:
    for answer in (_computed_with(NOW), Answer(all_ready=True)):
        service.lineage.answer = lambda _, answer=answer: answer  # type: ignore[misc] # bound now, not later
        run = await service.submit(service.instances.add(), parameters=_dates(start="2024-01-02"))
        assert run.is_partial_range


async def test_a_retry_of_a_range_is_refused_after_the_configuration_changed(
    service: RunningRunService,
) -> None:
    instance = service.instances.add()
    instance.schedule.manual.SetInParent()
    instance.schedule.retry_policy.max_retries = 3
    instance.schedule.retry_policy.delay.seconds = 30
    service.lineage.answer = lambda _: _computed_with(NOW)
    run = await service.submit(instance, parameters=_dates(start="2024-01-02"))
    started = await service.start(run.run_id)
    await service.fail(run.run_id, started.fencing_token)
    service.lineage.answer = lambda _: _computed_with(BEFORE)
    async with refused("FULL_RANGE_REQUIRED"):
        await service.runs.RetryRun(run_service_pb2.RetryRunRequest(run_id=run.run_id))
    service.clock.advance(30)
    await service.retrier.step()
    newest = (await service.runs.ListRuns(run_service_pb2.ListRunsRequest())).runs[0]
    assert (newest.run_number, newest.error.type) == (0, "FULL_RANGE_REQUIRED"), "recorded: nobody waited"
    service.lineage.answer = lambda _: _computed_with(NOW)
    retried = await service.runs.RetryRun(run_service_pb2.RetryRunRequest(run_id=run.run_id))
    assert retried.is_partial_range


async def test_a_completed_run_with_equal_content_counts_at_once(service: RunningRunService) -> None:
    """Lineage-service still has the old configuration; run-service attaches the run that used the new one."""
    instance = service.instances.add()
    run = await service.submit(instance)
    await _complete(service, run, digest="same")

    def answer(request: Check) -> Answer:
        found = _computed_with(NOW if request.run_events else BEFORE, digest="same")
        found.known_runs.add(run_number=1).flow.CopyFrom(flow_of(instance))
        return found

    service.lineage.answer = answer
    assert (await service.submit(instance, parameters=_dates(start="2024-01-02"))).is_partial_range


async def test_a_run_with_a_changed_accessor_counts_before_lineage_service_knows_it(
    service: RunningRunService,
) -> None:
    """The upstream got another accessor and ran; lineage-service has not received the run yet."""
    upstream = service.instances.add()
    instance = service.instances.add(kind="SIGNAL", upstreams=[upstream])
    run = await service.submit(upstream)
    started = await service.start(run.run_id)
    uri = f"{await service.folder(run.run_id)}/data"
    output = flow_pb2.VersionRef(uri=uri, digest="same", readers_hash="new")
    await service.complete(run.run_id, started.fencing_token, output_version=output)

    def answer(request: Check) -> Answer:
        has_events = bool(request.run_events)
        found = Answer(all_ready=True)
        found.known_runs.add(run_number=1).flow.CopyFrom(flow_of(upstream))
        found.input_versions.add(
            instance_id=upstream.instance_id,
            flow_kind=REFRESH,
            digest="same",
            readers_hash="new" if has_events else "old",
            instance_revision=2 if has_events else 1,
        )
        return found

    service.lineage.answer = answer
    admitted = await service.submit(instance)
    assert admitted.input_versions[0].instance_revision == 2
    stored = (await service.get(admitted.run_id)).input_versions[0]
    assert (stored.instance_revision, stored.readers_hash) == (2, "new")


async def test_the_base_version_has_its_revision_and_whether_it_is_partial(
    service: RunningRunService,
) -> None:
    instance = service.instances.add()
    instance.revision = 4
    first = await service.submit(instance, parameters=_dates(start="2024-01-02"))
    await _complete(service, first)
    service.lineage.answer = lambda _: _computed_with(NOW, digest="d1")
    instance.revision = 5
    second = await service.submit(instance)
    assert (second.base_version.instance_revision, second.base_version.is_partial_range) == (4, True)
    await _complete(service, second)
    third = await service.submit(instance)
    assert (third.base_version.instance_revision, third.base_version.is_partial_range) == (5, False)


async def test_a_range_that_covers_the_changes_counts_as_a_run_without_one(
    service: RunningRunService,
) -> None:
    instance = service.instances.add()
    await _complete(service, await service.submit(instance))
    read = flow_pb2.InputVersion(role="input", change_start="2024-01-02", change_end="2024-01-03")
    for dates, affected, covers in (
        ({"start": "2024-01-02"}, ("2024-01-02", "2024-01-09"), True),
        ({"start": "2024-01-02", "end": "2024-01-03"}, ("", ""), True),
        ({"start": "2024-01-02", "end": "2024-01-08"}, ("2024-01-02", "2024-01-09"), False),
        ({"start": "2024-01-03"}, ("2024-01-03", "2024-01-09"), False),
        ({"start": "2024-01-02"}, None, False),
        ({}, ("2024-01-02", "2024-01-03"), False),
    ):
        answer = _computed_with(NOW, digest="d1")
        answer.allows_incremental = True
        answer.input_versions.append(read)
        service.lineage.answer = _always(answer)
        run = await service.submit(instance, parameters=_dates(**dates))
        assert not run.covers_changes
        fields = (
            {} if affected is None else {"affected_dates": dict(zip(("start", "end"), affected, strict=True))}
        )
        completed = await _complete(service, run, **fields)
        assert (completed.covers_changes, completed.is_partial_range) == (covers, bool(dates))
        assert await service.get(run.run_id) == completed
        following = await service.submit(instance)
        assert following.base_version.is_partial_range is (bool(dates) and not covers)
        async with service.app.deps.database.read("default") as connection:
            key = (instance.instance_id, "refresh")
            (numbers,) = await list_numbers_of_flows(connection, "default", [key])
        assert (numbers.full == run.run_number) is (covers or not dates), (
            "lineage-service is compared with it"
        )
        await _complete(service, following)


async def test_a_permitted_deletion_is_recorded_with_its_reason(service: RunningRunService) -> None:
    instance = service.instances.add()
    for reason in ("", "  "):
        async with refused("ALLOW_DELETION_REASON_REQUIRED") as refusals:
            await service.submit(instance, allow_deletion=True, allow_deletion_reason=reason)
        assert [each.field for each in refusals[0].field_violations] == ["allow_deletion_reason"]
    run = await service.submit(instance, allow_deletion=True, allow_deletion_reason="half of it moved")
    assert run == await service.get(run.run_id)
    assert (run.allow_deletion, run.allow_deletion_reason) == (True, "half of it moved")
    listed = await service.runs.ListActivities(run_service_pb2.ListActivitiesRequest(run_id=run.run_id))
    details = MessageToDict(listed.activities[0].details)
    assert details == {"allow_deletion": True, "allow_deletion_reason": "half of it moved"}
    started = await service.start(run.run_id)
    await service.fail(run.run_id, started.fencing_token)
    retried = await service.runs.RetryRun(run_service_pb2.RetryRunRequest(run_id=run.run_id))
    assert not retried.allow_deletion, "one run was let through, not its retries"


async def test_the_number_of_deleted_rows_is_kept_with_the_run(service: RunningRunService) -> None:
    instance = service.instances.add()
    run = await service.submit(instance)
    result = run_pb2.PipelineResult(rows_fetched=7, rows_deleted=3)
    completed = await _complete(service, run, pipeline=result)
    assert completed.pipeline.rows_deleted == 3
    assert (await service.get(run.run_id)).pipeline.rows_deleted == 3
