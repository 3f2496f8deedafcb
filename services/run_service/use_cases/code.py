"""Compare the code that runs execute with the code on record for their definition versions."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from optaic.definition.v1 import definition_pb2
from optaic.run.v1 import run_pb2, run_service_pb2
from run_service.domain.errors import code_changed_meanwhile, invalid_fields
from run_service.domain.retries import CODE_CHANGED
from run_service.domain.statuses import RunEvent, RunStatus
from run_service.events import activity_row
from run_service.store import activities, auto_refreshes, code_hashes
from run_service.store import runs as run_store
from run_service.store.records import Record, datetime_of, message_json
from run_service.use_cases.dependencies import Dependencies
from run_service.use_cases.transitions import change_runs, error_json
from servicekit import audit, idempotency
from servicekit.context import RequestContext
from servicekit.database import Connection
from servicekit.errors import FieldViolation
from servicekit.times import set_time

_SHOWN = 10  # plugins that one message names
_Code = Sequence[run_pb2.PluginCode]


def is_refused(record: Record, orchestrator_run_id: str) -> bool:
    """Return whether the run has failed because of the code of this flow run."""
    run = record.run
    return (
        record.status is RunStatus.FAILED
        and run.error.type == CODE_CHANGED
        and run.orchestrator_run_id == orchestrator_run_id
    )


async def state_code(
    deps: Dependencies, connection: Connection, tenant_id: str, record: Record, code: _Code
) -> Record:
    """Store the code that a locked, running run is about to execute, or fail the run for it.

    Raises:
        InvalidArgumentError: It names a definition version twice.
    """
    ids = [each.definition_version_id for each in code]
    if len(set(ids)) < len(ids):
        twice = next(index for index, one in enumerate(ids) if one in ids[:index])
        violation = FieldViolation(
            f"code[{twice}].definition_version_id",
            "repeats an earlier entry; send one for each definition version",
        )
        raise invalid_fields([violation])
    checked = await _compare(deps, connection, tenant_id, record, code)
    if any(_is_refused(each) for each in checked):
        message = _refusal(record.executor, [each for each in checked if _is_refused(each)])
        (failed,) = await change_runs(
            deps,
            connection,
            tenant_id,
            [record.run.run_id],
            RunEvent.FAILED,
            actor=record.executor,
            message=message[:1000],
            values={
                "code": [message_json(each) for each in checked],
                "error": error_json(CODE_CHANGED, message),
            },
            flow_run="ends_itself",
        )
        return failed
    if checked == list(record.run.code):
        return record
    stated = await run_store.update_code(
        connection, tenant_id, record.run.run_id, [message_json(each) for each in checked]
    )
    await activities.insert_activities(connection, _warnings(deps, tenant_id, record, checked))
    return stated or record


async def _compare(
    deps: Dependencies, connection: Connection, tenant_id: str, record: Record, code: _Code
) -> list[run_pb2.PluginCode]:
    """Return the code with the expected hashes; put new code on record, unless the run is refused."""
    compared = [each.definition_version_id for each in code if each.hash and not each.is_builtin]
    expected = await code_hashes.list_newest_hashes(connection, tenant_id, compared)
    checked = _expect(code, expected)
    first = [each for each in code if each.definition_version_id in set(compared) - expected.keys()]
    if not first or any(_is_refused(each) for each in checked):
        return checked
    rows = [_first_row(deps, tenant_id, record, each) for each in first]
    attempt = await connection.begin_nested()
    if await code_hashes.insert_hashes(connection, rows) < len(rows):
        # Another first run came in between; its hash counts.
        checked = _expect(code, await code_hashes.list_newest_hashes(connection, tenant_id, compared))
    if any(_is_refused(each) for each in checked):
        await attempt.rollback()  # a refused run puts nothing on record
    else:
        await attempt.commit()
    return checked


def _expect(code: _Code, expected: dict[str, str]) -> list[run_pb2.PluginCode]:
    checked = []
    for each in code:
        one = run_pb2.PluginCode()
        one.CopyFrom(each)
        wanted = expected.get(each.definition_version_id, each.hash)
        one.expected_hash = wanted if wanted != each.hash else ""
        checked.append(one)
    return checked


def _is_refused(code: run_pb2.PluginCode) -> bool:
    return bool(code.expected_hash) and code.check != run_pb2.CODE_CHECK_WARN


def _first_row(
    deps: Dependencies, tenant_id: str, record: Record, code: run_pb2.PluginCode
) -> dict[str, Any]:
    return {
        "tenant_id": tenant_id,
        "definition_version_id": code.definition_version_id,
        "number": 1,
        "hash": code.hash,
        "definition_name": code.definition_name,
        "definition_version": code.definition_version,
        "run_id": record.run.run_id,
        "actor": record.executor,
        "reason": "",
        "create_time": deps.clock.now(),
    }


def _describe(code: run_pb2.PluginCode) -> str:
    name = f"{code.definition_name} {code.definition_version}".strip() or code.definition_version_id
    return f"{name} ({code.code_ref}): {code.hash} instead of {code.expected_hash}"


def _describe_all(changed: _Code) -> str:
    shown = "; ".join(_describe(each) for each in changed[:_SHOWN])
    return shown + (f"; and {len(changed) - _SHOWN} more" if len(changed) > _SHOWN else "")


def _refusal(worker: str, refused: _Code) -> str:
    first = refused[0]
    name = f"{first.definition_name} {first.definition_version}"
    return (
        f"worker {worker} has other code than is on record for {_describe_all(refused)}. Publish the changed code as a new version"
        " of the definition (a higher `version` in its manifest) and move the instance to it; or, where it means the"
        f" same, accept it: optaic code accept {name} --hash {first.hash} --reason '...'"
    )


def _warnings(deps: Dependencies, tenant_id: str, record: Record, checked: _Code) -> list[dict[str, Any]]:
    known = {(each.definition_version_id, each.hash) for each in record.run.code}
    return [
        activity_row(
            "code_changed",
            tenant_id,
            record.run.run_id,
            record.kind,
            activity_id=deps.ids(),
            actor=record.executor,
            now=deps.clock.now(),
            message=f"other code than is on record: {_describe(each)}",
            details={"definition_version_id": each.definition_version_id, "hash": each.hash},
        )
        for each in checked
        if each.expected_hash and (each.definition_version_id, each.hash) not in known
    ]


def changed_metrics(run: run_pb2.Run) -> dict[str, str]:
    """Return the metric that names code other than the code on record; empty if there is none."""
    changed = [each for each in run.code if each.expected_hash]
    return {"code_changed": _describe_all(changed)} if changed else {}


async def accept_code(
    deps: Dependencies, context: RequestContext, request: run_service_pb2.AcceptCodeRequest
) -> run_service_pb2.CodeHash:
    """Put another hash of a definition version's code on record.

    Raises:
        NotFoundError: DEFINITION_VERSION_NOT_FOUND.
        InvalidArgumentError: The version has no code.
        AbortedError: CONCURRENT_UPDATE, another caller accepts at the same moment.
        UnavailableError: instance-service does not answer as it should.
    """
    tenant_id, payload_hash = context.tenant_id, idempotency.payload_hash(request)
    version = await deps.peers.get_definition_version(request.definition_version_id)
    if not version.code_ref:
        text = f"names a saved expression ({version.definition_name} {version.version}), which has no code to accept"
        violation = FieldViolation("definition_version_id", text)
        raise invalid_fields([violation])
    async with deps.database.transaction(tenant_id) as connection:
        stored = await idempotency.replay_or_none(connection, "AcceptCode", request.request_id, payload_hash)
        if stored is not None:
            return run_service_pb2.CodeHash.FromString(stored)
        newest = await code_hashes.get_newest_hash(connection, tenant_id, request.definition_version_id)
        if newest is not None and newest.hash == request.hash:
            accepted = newest
        else:
            accepted = _acceptance(deps, context, request, version, newest.number if newest else 0)
            if request.validate_only:
                return accepted
            if not await code_hashes.insert_hashes(connection, [_row_of(tenant_id, accepted)]):
                raise code_changed_meanwhile()
            await auto_refreshes.wake_held(connection, tenant_id, deps.clock.now())
            audit.note(
                f"definition_versions/{accepted.definition_version_id}/code",
                before=accepted.number - 1,
                after=accepted.number,
                reason=request.reason,
            )
        await idempotency.store(connection, "AcceptCode", request.request_id, accepted.SerializeToString())
    return accepted


def _acceptance(
    deps: Dependencies,
    context: RequestContext,
    request: run_service_pb2.AcceptCodeRequest,
    version: definition_pb2.DefinitionVersion,
    last_number: int,
) -> run_service_pb2.CodeHash:
    accepted = run_service_pb2.CodeHash(
        definition_version_id=version.definition_version_id,
        definition_name=version.definition_name,
        definition_version=version.version,
        number=last_number + 1,
        hash=request.hash,
        actor=context.actor,
        reason=request.reason,
    )
    set_time(accepted.create_time, deps.clock.now())
    return accepted


def _row_of(tenant_id: str, accepted: run_service_pb2.CodeHash) -> dict[str, Any]:
    names = (
        "definition_version_id",
        "number",
        "hash",
        "definition_name",
        "definition_version",
        "actor",
        "reason",
    )
    values = {name: getattr(accepted, name) for name in names}
    return {
        **values,
        "tenant_id": tenant_id,
        "run_id": None,
        "create_time": datetime_of(accepted.create_time),
    }
