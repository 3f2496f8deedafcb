"""Answer what clients read: runs, their timelines and the hashes of code on record."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncGenerator, Collection, Mapping
from contextlib import aclosing
from datetime import datetime

from optaic.common.v1.flow_pb2 import FlowKind
from optaic.rules.pages import DEFAULT_SIZE
from optaic.run.v1 import run_pb2, run_report_service_pb2, run_service_pb2
from optaic.run.v1.data_move_service_pb2 import DataMove
from run_service.domain.errors import REASONS_NAMING_UPSTREAMS, UPSTREAMS_BLOCKED, run_not_found
from run_service.domain.statuses import ENDED
from run_service.events import SERVICE, forget_details
from run_service.store import activities, code_hashes, locations
from run_service.store import runs as run_store
from run_service.store.records import Record
from run_service.use_cases import data_moves
from run_service.use_cases.dependencies import Dependencies
from servicekit import pages
from servicekit.context import RequestContext
from servicekit.enums import enum_word
from servicekit.errors import DomainError

# How long after its end a run that was read makes later reads elsewhere wait for its consequences.
_CAUSAL_SECONDS = 300


async def locate(deps: Dependencies, tenant_id: str, ids: Collection[str]) -> Mapping[str, str]:
    """Return the project of each of the ids that is a run's or an instance's.

    The event of a new instance may still be on its way, so instance-service is asked for a single unknown one.
    """
    async with deps.database.read(tenant_id) as connection:
        found = await locations.locate(connection, tenant_id, ids)
    unknown = set(ids) - found.keys()
    if len(unknown) == 1:
        with contextlib.suppress(DomainError):
            instance = await deps.peers.get_instance(*unknown)
            found[instance.instance_id] = instance.project_id
    return found


async def get_data_move(deps: Dependencies, context: RequestContext) -> DataMove:
    """Return where the tenant's data lies, and the move that is under way."""
    async with deps.database.read(context.tenant_id) as connection:
        return await data_moves.describe(deps, connection, context.tenant_id)


def _note_end(deps: Dependencies, context: RequestContext, record: Record) -> None:
    """Answer the event of an ended run as a write token; later reads of lineage or status wait for it."""
    is_recent = deps.clock.now().timestamp() - record.run.end_time.ToSeconds() < _CAUSAL_SECONDS
    if record.status in ENDED and is_recent:
        context.write_tokens.append(f"{SERVICE}/{record.last_event_id}")


def _shown(context: RequestContext, run: run_pb2.Run) -> run_pb2.Run:
    """Return a run without the names of upstreams in why it was refused, if the caller may not read all projects."""
    if not context.is_confined or run.error.type not in REASONS_NAMING_UPSTREAMS:
        return run
    shown = run_pb2.Run()
    shown.CopyFrom(run)
    shown.error.message = UPSTREAMS_BLOCKED
    return shown


async def get_run(
    deps: Dependencies, context: RequestContext, request: run_service_pb2.GetRunRequest
) -> run_pb2.Run:
    """Return a run."""
    async with deps.database.read(context.tenant_id) as connection:
        record = await run_store.get_run(connection, context.tenant_id, request.run_id)
    if record is None:
        raise run_not_found(request.run_id)
    _note_end(deps, context, record)
    return _shown(context, record.run)


async def watch_run(
    deps: Dependencies, context: RequestContext, request: run_service_pb2.WatchRunRequest
) -> AsyncGenerator[run_pb2.Run, None]:
    """Yield a run as it is, then after each change, until it has ended.

    Raises:
        NotFoundError: RUN_NOT_FOUND.
    """
    async with aclosing(deps.watches.watch(context.tenant_id, request.run_id)) as records:
        async for record in records:
            _note_end(deps, context, record)
            yield _shown(context, record.run)


async def watch_dispatches(
    deps: Dependencies, context: RequestContext
) -> AsyncGenerator[run_report_service_pb2.WatchDispatchesResponse, None]:
    """Yield at once, and then whenever a flow run was made for a run of the tenant; name it if it waits."""
    async with aclosing(deps.hints.listen(context.tenant_id)) as hints:
        async for dispatched in hints:
            yield run_report_service_pb2.WatchDispatchesResponse(dispatched_run=dispatched)


async def list_runs(
    deps: Dependencies, context: RequestContext, request: run_service_pb2.ListRunsRequest
) -> run_service_pb2.ListRunsResponse:
    """Return a page of runs, newest first."""
    statuses = sorted({enum_word(run_pb2.RunStatus, status) for status in request.statuses if status})
    instance_ids = sorted({*request.instance_ids, *([request.instance_id] if request.instance_id else [])})
    tokens = pages.PageTokens(
        deps.signer, context.tenant_id, "ListRuns", instance_ids, request.flow_kind, statuses
    )
    position = tokens.decode(request.page_token)
    size = request.page_size or DEFAULT_SIZE
    async with deps.database.read(context.tenant_id) as connection:
        records = await run_store.list_runs(
            connection,
            context.tenant_id,
            instance_ids=instance_ids,
            flow_kind=enum_word(FlowKind, request.flow_kind) if request.flow_kind else "",
            statuses=statuses,
            before_run_id=position.get("run_id", ""),
            limit=size + 1,
            only=context.readable_projects,
        )
    for record in records:
        forget_details(record.run)  # with them, few runs would fit into a page
    page = pages.fit(records, size, lambda record: record.run.ByteSize())
    response = run_service_pb2.ListRunsResponse(runs=[_shown(context, record.run) for record in page])
    if len(records) > len(page):
        response.next_page_token = tokens.encode({"run_id": page[-1].run.run_id})
    return response


async def list_activities(
    deps: Dependencies, context: RequestContext, request: run_service_pb2.ListActivitiesRequest
) -> run_service_pb2.ListActivitiesResponse:
    """Return a page of a run's timeline, in the order it happened."""
    tokens = pages.PageTokens(deps.signer, context.tenant_id, "ListActivities", request.run_id)
    after = None
    if position := tokens.decode(request.page_token):
        after = (datetime.fromisoformat(position["create_time"]), str(position["activity_id"]))
    size = request.page_size or DEFAULT_SIZE
    async with deps.database.read(context.tenant_id) as connection:
        record = await run_store.get_run(connection, context.tenant_id, request.run_id)
        if record is None:
            raise run_not_found(request.run_id)
        found = await activities.list_activities(
            connection, context.tenant_id, request.run_id, after=after, limit=size + 1
        )
    told, shown = record.run.error.message, _shown(context, record.run).error.message
    for activity in found:
        activity.message = activity.message.replace(told, shown)
    response = run_service_pb2.ListActivitiesResponse(activities=found[:size])
    if len(found) > size:
        last = found[size - 1]
        moment = last.create_time.ToDatetime().isoformat() + "+00:00"
        response.next_page_token = tokens.encode({"create_time": moment, "activity_id": last.activity_id})
    return response


async def list_code_hashes(
    deps: Dependencies, context: RequestContext, request: run_service_pb2.ListCodeHashesRequest
) -> run_service_pb2.ListCodeHashesResponse:
    """Return a page of the hashes that are and were on record."""
    tokens = pages.PageTokens(deps.signer, context.tenant_id, "ListCodeHashes", request.definition_version_id)
    after = None
    if position := tokens.decode(request.page_token):
        after = (str(position["definition_version_id"]), int(position["number"]))
    size = request.page_size or DEFAULT_SIZE
    async with deps.database.read(context.tenant_id) as connection:
        found = await code_hashes.list_hashes(
            connection,
            context.tenant_id,
            definition_version_id=request.definition_version_id,
            after=after,
            limit=size + 1,
        )
    page = pages.fit(found, size, lambda each: each.ByteSize())
    response = run_service_pb2.ListCodeHashesResponse(code_hashes=page)
    if len(found) > len(page):
        last = {"definition_version_id": page[-1].definition_version_id, "number": page[-1].number}
        response.next_page_token = tokens.encode(last)
    return response
