"""The first run of a definition version records its code; other code is refused, accepted or reported."""

from __future__ import annotations

import asyncio
import hashlib
import uuid
from typing import Any

import pytest

from optaic.definition.v1 import definition_pb2
from optaic.run.v1 import run_pb2, run_report_service_pb2, run_service_pb2
from support.identities import caller
from support.run_peers import Definitions
from support.run_service import RunningRunService, refused

WARN, REFUSE = run_pb2.CODE_CHECK_WARN, run_pb2.CODE_CHECK_REFUSE
OTHER_TENANT = caller("maintainer", "other")


def hash_of(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def code_of(version: definition_pb2.DefinitionVersion, text: str, **fields: Any) -> run_pb2.PluginCode:
    return run_pb2.PluginCode(
        definition_version_id=version.definition_version_id,
        definition_name=version.definition_name,
        definition_version=version.version,
        code_ref=version.code_ref,
        distribution="acme-research",
        distribution_version="1.2.0",
        hash=hash_of(text),
        **{"check": REFUSE, **fields},
    )


@pytest.fixture
def definitions(service: RunningRunService) -> Definitions:
    return service.instances.definitions


async def start(
    service: RunningRunService, *code: run_pb2.PluginCode, max_retries: int = 0
) -> run_report_service_pb2.StartRunResponse:
    """Start a run and report the code that it will execute."""
    instance = service.instances.add()
    if max_retries:
        instance.schedule.manual.SetInParent()
        instance.schedule.retry_policy.max_retries = max_retries
    run = await service.submit(instance)
    flow_run_id = await service.dispatched(run.run_id)
    await service.start(run.run_id, flow_run_id, "host:1")
    return await service.start(run.run_id, flow_run_id, "host:1", code=code)


async def finish(service: RunningRunService, answer: run_report_service_pb2.StartRunResponse) -> run_pb2.Run:
    return await service.complete(answer.run.run_id, answer.fencing_token)


async def hashes(service: RunningRunService, **fields: Any) -> list[run_service_pb2.CodeHash]:
    response = await service.runs.ListCodeHashes(run_service_pb2.ListCodeHashesRequest(**fields))
    return list(response.code_hashes)


async def accept(
    service: RunningRunService, version: definition_pb2.DefinitionVersion, text: str, **fields: Any
) -> run_service_pb2.CodeHash:
    accepted: run_service_pb2.CodeHash = await service.runs.AcceptCode(
        run_service_pb2.AcceptCodeRequest(
            definition_version_id=version.definition_version_id,
            hash=hash_of(text),
            **{"reason": "only comments differ", **fields},
        )
    )
    return accepted


async def test_the_first_run_puts_its_code_on_record(
    service: RunningRunService, definitions: Definitions
) -> None:
    version = definitions.add("acme_ramp")
    code = code_of(version, "one", git_revision="f" * 40)
    answer = await start(service, code)
    assert answer.run.status == run_pb2.RUN_STATUS_RUNNING
    assert list(answer.run.code) == [code]
    (found,) = await hashes(service)
    assert (found.definition_version_id, found.number) == (version.definition_version_id, 1)
    assert (found.hash, found.run_id, found.actor) == (hash_of("one"), answer.run.run_id, "host:1")
    assert (found.definition_name, found.definition_version) == ("acme_ramp", "1.0.0")
    completed = await finish(service, answer)
    assert list(completed.code) == [code]
    assert (await start(service, code)).run.status == run_pb2.RUN_STATUS_RUNNING
    assert len(await hashes(service)) == 1


async def test_other_code_ends_the_run_before_anything_is_computed(
    service: RunningRunService, definitions: Definitions
) -> None:
    version, fresh = definitions.add("acme_ramp"), definitions.add("acme_new")
    await finish(service, await start(service, code_of(version, "one")))
    answer = await start(service, code_of(fresh, "x"), code_of(version, "two"), max_retries=3)
    assert not answer.fencing_token
    run = await service.get(answer.run.run_id)
    assert run == answer.run
    assert (run.status, run.error.type) == (run_pb2.RUN_STATUS_FAILED, "CODE_CHANGED")
    for part in (
        "host:1",
        "acme_ramp 1.0.0",
        hash_of("one"),
        hash_of("two"),
        "new version",
        "optaic code accept",
    ):
        assert part in run.error.message
    assert {each.definition_name: each.expected_hash for each in run.code} == {
        "acme_new": "",
        "acme_ramp": hash_of("one"),
    }
    # The refused code was not recorded, and the run is not retried automatically.
    assert [each.definition_name for each in await hashes(service)] == ["acme_ramp"]
    service.clock.advance(3_600)
    await service.retrier.step()
    assert len((await service.runs.ListRuns(run_service_pb2.ListRunsRequest())).runs) == 2
    assert (await service.outbox_types())[-1] == "failed"


async def test_a_refused_executor_that_reports_its_code_again_is_refused_again(
    service: RunningRunService, definitions: Definitions
) -> None:
    version = definitions.add("acme_ramp")
    await finish(service, await start(service, code_of(version, "one")))
    code = code_of(version, "two")
    refusal = await start(service, code)
    flow_run_id = refusal.run.orchestrator_run_id
    assert await service.start(refusal.run.run_id, flow_run_id, "host:1", code=[code]) == refusal
    async with refused("RUN_ENDED"):
        await service.start(refusal.run.run_id, str(uuid.uuid4()), "host:2", code=[code])


async def test_saying_the_same_code_again_changes_nothing(
    service: RunningRunService, definitions: Definitions
) -> None:
    code = code_of(definitions.add("acme_ramp"), "one")
    answer = await start(service, code)
    again = await service.start(answer.run.run_id, answer.run.orchestrator_run_id, "host:1", code=[code])
    assert again == answer


async def test_a_code_warning_does_not_stop_the_run_and_is_shown_everywhere(
    service: RunningRunService, definitions: Definitions
) -> None:
    version = definitions.add("acme_ramp")
    await finish(service, await start(service, code_of(version, "one", check=WARN)))
    answer = await start(service, code_of(version, "two", check=WARN))
    assert answer.run.status == run_pb2.RUN_STATUS_RUNNING
    assert answer.run.code[0].expected_hash == hash_of("one")
    completed = await finish(service, answer)
    said = str(completed.metrics["code_changed"])
    assert hash_of("one") in said
    assert hash_of("two") in said
    assert "pipeline_run.code_changed" in await service.activity_types(completed.run_id)
    assert [each.hash for each in await hashes(service)] == [hash_of("one")]


async def test_code_that_is_built_in_or_not_found_is_recorded_and_never_compared(
    service: RunningRunService, definitions: Definitions
) -> None:
    built_in, absent = definitions.add("delta"), definitions.add("gone")
    for text in ("one", "two"):
        nothing = code_of(absent, text)
        nothing.hash = ""
        answer = await start(service, code_of(built_in, text, is_builtin=True), nothing)
        assert (await finish(service, answer)).code[0].hash == hash_of(text)
    assert await hashes(service) == []


async def test_one_of_two_concurrent_first_runs_sets_the_hash_and_the_other_is_compared(
    service: RunningRunService, definitions: Definitions
) -> None:
    versions = [definitions.add(f"v{index}") for index in range(5)]

    async def race(text: str) -> run_report_service_pb2.StartRunResponse:
        shuffled = versions if text == "one" else versions[::-1]
        return await start(service, *(code_of(version, text) for version in shuffled))

    answers = await asyncio.gather(*(race(text) for text in ("one", "two", "one", "two")))
    on_record = {each.hash for each in await hashes(service)}
    assert len(on_record) == 1
    for answer in answers:
        fits = {each.hash for each in answer.run.code} == on_record
        expected = run_pb2.RUN_STATUS_RUNNING if fits else run_pb2.RUN_STATUS_FAILED
        assert answer.run.status == expected
    assert len({answer.run.status for answer in answers}) == 2


async def test_accepted_code_runs_from_then_on_and_the_old_does_not(
    service: RunningRunService, definitions: Definitions
) -> None:
    version = definitions.add("acme_ramp")
    await finish(service, await start(service, code_of(version, "one")))
    assert (await start(service, code_of(version, "two"))).run.error.type == "CODE_CHANGED"
    planned = await accept(service, version, "two", validate_only=True)
    assert [each.number for each in await hashes(service)] == [1]
    accepted = await accept(service, version, "two", request_id="r")
    assert await accept(service, version, "two", request_id="r") == accepted
    assert (accepted.number, accepted.reason, planned.number) == (2, "only comments differ", 2)
    assert accepted.actor
    assert await accept(service, version, "two", reason="again") == accepted
    assert [each.number for each in await hashes(service)] == [2, 1]
    await finish(service, await start(service, code_of(version, "two")))
    assert (await start(service, code_of(version, "one"))).run.error.type == "CODE_CHANGED"


async def test_code_may_be_accepted_before_its_first_run(
    service: RunningRunService, definitions: Definitions
) -> None:
    version = definitions.add("acme_ramp")
    await accept(service, version, "two")
    assert (await start(service, code_of(version, "one"))).run.error.type == "CODE_CHANGED"
    await finish(service, await start(service, code_of(version, "two")))


async def test_a_version_without_code_cannot_have_code_accepted(
    service: RunningRunService, definitions: Definitions
) -> None:
    async with refused("DEFINITION_VERSION_NOT_FOUND"):
        await accept(service, definition_pb2.DefinitionVersion(definition_version_id=str(uuid.uuid4())), "x")
    async with refused("INVALID_ARGUMENT") as errors:
        await accept(service, definitions.add("MOMENTUM", code_ref=""), "x")
    assert errors[0].field_violations[0].field == "definition_version_id"
    async with refused("INVALID_ARGUMENT"):
        await accept(service, definitions.add("acme_ramp"), "x", reason="")


async def test_code_that_is_named_twice_is_refused_by_its_place(
    service: RunningRunService, definitions: Definitions
) -> None:
    version = definitions.add("acme_ramp")
    async with refused("INVALID_ARGUMENT") as errors:
        await start(service, code_of(version, "one"), code_of(version, "two"))
    assert errors[0].field_violations[0].field == "code[1].definition_version_id"


async def test_the_record_is_read_in_pages_and_by_version(
    service: RunningRunService, definitions: Definitions
) -> None:
    versions = [definitions.add(f"v{index}") for index in range(3)]
    for version in versions:
        for text in ("one", "two"):
            await accept(service, version, text)
    everything = await hashes(service)
    found: list[run_service_pb2.CodeHash] = []
    request = run_service_pb2.ListCodeHashesRequest(page_size=1)
    while True:
        response = await service.runs.ListCodeHashes(request)
        found += response.code_hashes
        if not response.next_page_token:
            break
        request.page_token = response.next_page_token
    assert found == everything
    assert len(everything) == 6
    only = await hashes(service, definition_version_id=versions[1].definition_version_id)
    assert [(each.definition_name, each.number) for each in only] == [("v1", 2), ("v1", 1)]


async def test_each_tenant_has_a_record_of_its_own(
    service: RunningRunService, definitions: Definitions
) -> None:
    version = definitions.add("acme_ramp")
    await accept(service, version, "one")
    request = run_service_pb2.ListCodeHashesRequest()
    listed = await service.runs.ListCodeHashes(request, metadata=OTHER_TENANT)
    assert not listed.code_hashes
    await finish(service, await start(service, code_of(version, "one")))
