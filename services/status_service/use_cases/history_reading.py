"""Read the history of statuses: its entries, and the share of time in which instances were READY; write nothing."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta

from optaic.instance.v1.instance_pb2 import InstanceKind
from optaic.rules.pages import DEFAULT_SIZE
from optaic.status.v1.status_pb2 import InstanceAvailability
from optaic.status.v1.status_service_pb2 import (
    GetStatusHistoryRequest,
    GetStatusHistoryResponse,
    ListInstanceAvailabilityRequest,
    ListInstanceAvailabilityResponse,
)
from servicekit import pages
from servicekit.context import RequestContext
from servicekit.enums import enum_word
from status_service import conversion
from status_service.domain.history import DEFAULT_WINDOWS, Window, window_of
from status_service.store.history import list_durations, list_transitions
from status_service.store.listing import Selection, list_names
from status_service.use_cases.dependencies import Dependencies

_NOTHING = (timedelta(), timedelta())


async def get_status_history(
    deps: Dependencies, context: RequestContext, request: GetStatusHistoryRequest
) -> GetStatusHistoryResponse:
    """Return a page of an instance's history, newest first.

    To a confined caller it does not name the runs, which may be those of another project.

    Raises:
        OutOfRangeError: STATUS_HISTORY_NOT_KEPT.
        InvalidArgumentError: The window is empty.
    """
    now = deps.clock.now()
    start = request.start_time.ToDatetime(UTC) if request.HasField("start_time") else None
    end = request.end_time.ToDatetime(UTC) if request.HasField("end_time") else None
    if start is not None:
        window_of("start_time", start, end, now, now - deps.kept_history)
    filters = (request.instance_id, str(start), str(end), request.only_status_changes)
    tokens = pages.PageTokens(deps.signer, context.tenant_id, "GetStatusHistory", *filters)
    size = request.page_size or DEFAULT_SIZE
    async with deps.database.read(context.tenant_id) as connection:
        rows = await list_transitions(
            connection,
            context.tenant_id,
            request.instance_id,
            size + 1,
            before=tokens.decode(request.page_token).get("before"),
            start_time=start,
            end_time=end,
            only_status_changes=request.only_status_changes,
        )
    response = GetStatusHistoryResponse(
        transitions=[
            conversion.transition(
                row.instance_id,
                row.from_status,
                row.to_status,
                row.revision,
                row.create_time,
                "" if context.is_confined else row.caused_by_run_id,
                next_time,
                now,
            )
            for row, next_time in rows[:size]
        ]
    )
    if len(rows) > size:
        response.next_page_token = tokens.encode({"before": rows[size - 1][0].revision})
    return response


async def list_instance_availability(
    deps: Dependencies, context: RequestContext, request: ListInstanceAvailabilityRequest
) -> ListInstanceAvailabilityResponse:
    """Return the share of time in which instances were READY, of a page of those that the caller may read.

    Raises:
        OutOfRangeError: STATUS_HISTORY_NOT_KEPT.
        InvalidArgumentError: A window is empty.
    """
    kinds = sorted(enum_word(InstanceKind, kind) for kind in request.kinds)
    given = [each.SerializeToString(deterministic=True).hex() for each in request.windows]
    filters = (request.project_id, kinds, sorted(request.instance_ids), given)
    tokens = pages.PageTokens(deps.signer, context.tenant_id, "ListInstanceAvailability", *filters)
    position = tokens.decode(request.page_token)
    present = deps.clock.now()
    now = datetime.fromisoformat(position["now"]) if position else present
    windows = _windows(request, now, present - deps.kept_history)
    size = request.page_size or DEFAULT_SIZE
    wanted = Selection(
        project_id=request.project_id,
        kinds=kinds,
        instance_ids=request.instance_ids,
        only=context.readable_projects,
    )
    async with deps.database.read(context.tenant_id) as connection:
        found = await list_names(connection, context.tenant_id, wanted, size + 1, position.get("after", ""))
        shown = found[:size]
        ids = [each.instance_id for each in shown]
        durations = await list_durations(connection, context.tenant_id, ids, windows, now)
    response = ListInstanceAvailabilityResponse(
        instance_availabilities=[
            InstanceAvailability(
                instance_id=each.instance_id,
                instance_name=each.name,
                project_id=each.project_id,
                windows=[
                    conversion.availability(window, *durations.get((each.instance_id, number), _NOTHING))
                    for number, window in enumerate(windows)
                ],
            )
            for each in shown
        ]
    )
    if len(found) > size:
        response.next_page_token = tokens.encode({"after": ids[-1], "now": now.isoformat()})
    return response


def _windows(
    request: ListInstanceAvailabilityRequest, now: datetime, kept_since: datetime
) -> Sequence[Window]:
    if not request.windows:
        return [window_of("windows", now - length, None, now, kept_since) for length in DEFAULT_WINDOWS]
    return [
        window_of(
            f"windows[{index}].start_time",
            each.start_time.ToDatetime(UTC),
            each.end_time.ToDatetime(UTC) if each.HasField("end_time") else None,
            now,
            kept_since,
        )
        for index, each in enumerate(request.windows)
    ]
