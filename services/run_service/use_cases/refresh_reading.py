"""Answer what clients read about refreshes, and stream their changes."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import aclosing

from optaic.common.v1.flow_pb2 import FlowKind
from optaic.rules.pages import DEFAULT_SIZE, LARGEST_SIZE
from optaic.run.v1 import refresh_pb2, run_service_pb2
from run_service.domain.refresh_errors import refresh_not_found
from run_service.domain.refreshing import RefreshStatus
from run_service.store import refreshes
from run_service.store.refresh_records import StoredRefresh
from run_service.use_cases.dependencies import Dependencies
from run_service.use_cases.refresh_planning import shown_flows
from run_service.use_cases.refreshes import message_of
from servicekit import pages
from servicekit.context import RequestContext
from servicekit.database import Connection
from servicekit.enums import enum_word


async def get_refresh(
    deps: Dependencies, context: RequestContext, request: run_service_pb2.GetRefreshRequest
) -> refresh_pb2.Refresh:
    """Return a refresh without its flows.

    Raises:
        NotFoundError: REFRESH_NOT_FOUND.
    """
    async with deps.database.read(context.tenant_id) as connection:
        refresh = await _find(connection, context, request.refresh_id)
        return await message_of(connection, context.tenant_id, refresh)


async def list_refreshes(
    deps: Dependencies, context: RequestContext, request: run_service_pb2.ListRefreshesRequest
) -> run_service_pb2.ListRefreshesResponse:
    """Return a page of refreshes, newest first."""
    statuses = sorted({enum_word(refresh_pb2.RefreshStatus, each) for each in request.statuses if each})
    tokens = pages.PageTokens(deps.signer, context.tenant_id, "ListRefreshes", statuses)
    position = tokens.decode(request.page_token)
    size = request.page_size or DEFAULT_SIZE
    async with deps.database.read(context.tenant_id) as connection:
        found = await refreshes.list_refreshes(
            connection,
            context.tenant_id,
            statuses=statuses,
            before=position.get("refresh_id", ""),
            limit=size + 1,
            only=context.readable_projects,
        )
        counts = await refreshes.count_flows(
            connection, context.tenant_id, [each.refresh_id for each in found]
        )
    messages = [each.message(counts[each.refresh_id]) for each in found]
    page = pages.fit(messages, size, lambda each: each.ByteSize())
    response = run_service_pb2.ListRefreshesResponse(refreshes=page)
    if len(messages) > len(page):
        response.next_page_token = tokens.encode({"refresh_id": page[-1].refresh_id})
    return response


async def list_refresh_flows(
    deps: Dependencies, context: RequestContext, request: run_service_pb2.ListRefreshFlowsRequest
) -> run_service_pb2.ListRefreshFlowsResponse:
    """Return a page of the flows of a refresh, level by level.

    Raises:
        NotFoundError: REFRESH_NOT_FOUND.
    """
    tokens = pages.PageTokens(deps.signer, context.tenant_id, "ListRefreshFlows", request.refresh_id)
    after = None
    if position := tokens.decode(request.page_token):
        after = (int(position["level"]), str(position["instance_id"]), str(position["flow_kind"]))
    size = request.page_size or DEFAULT_SIZE
    async with deps.database.read(context.tenant_id) as connection:
        await _find(connection, context, request.refresh_id)
        found = await refreshes.list_flow_messages(
            connection, context.tenant_id, request.refresh_id, after=after, limit=size + 1
        )
    page = pages.fit(shown_flows(context, found), size, lambda each: each.ByteSize())
    response = run_service_pb2.ListRefreshFlowsResponse(flows=page)
    if len(found) > len(page):
        last = page[-1]
        word = enum_word(FlowKind, last.flow.flow_kind)
        response.next_page_token = tokens.encode(
            {"level": last.level, "instance_id": last.flow.instance_id, "flow_kind": word}
        )
    return response


async def watch_refresh(
    deps: Dependencies, context: RequestContext, request: run_service_pb2.WatchRefreshRequest
) -> AsyncGenerator[run_service_pb2.WatchRefreshResponse, None]:
    """Yield a refresh with all flows, then with those that changed, until it has ended; alone, if nothing changes for a while.

    Raises:
        NotFoundError: REFRESH_NOT_FOUND.
    """
    revision, told_time = -1, deps.clock.now()
    hints = deps.refresh_hints.listen(request.refresh_id, at_least_every=deps.settings.watch_poll_seconds)
    async with aclosing(hints):
        async for _ in hints:
            async with deps.database.read(context.tenant_id) as connection:
                refresh = await _find(connection, context, request.refresh_id)
                flows = []
                if refresh.revision > revision:
                    flows = await refreshes.list_changed_flows(
                        connection, context.tenant_id, request.refresh_id, revision
                    )
                message = await message_of(connection, context.tenant_id, refresh)
            now = deps.clock.now()
            is_bookmark = (now - told_time).total_seconds() >= deps.settings.watch_bookmark_seconds
            if refresh.revision > revision or is_bookmark:
                for start in range(0, len(flows) or 1, LARGEST_SIZE):
                    shown = shown_flows(context, flows[start : start + LARGEST_SIZE])
                    yield run_service_pb2.WatchRefreshResponse(refresh=message, flows=shown)
                revision, told_time = refresh.revision, now
            if refresh.status is not RefreshStatus.RUNNING:
                return


async def _find(connection: Connection, context: RequestContext, refresh_id: str) -> StoredRefresh:
    refresh = await refreshes.get_refresh(
        connection, context.tenant_id, refresh_id, only=context.readable_projects
    )
    if refresh is None:
        raise refresh_not_found(refresh_id)
    return refresh
