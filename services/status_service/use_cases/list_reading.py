"""List and count the statuses in the projects that the caller may read; write nothing."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from datetime import UTC, datetime

from optaic.common.v1.flow_pb2 import FlowKind, Status
from optaic.instance.v1.instance_pb2 import InstanceKind
from optaic.lineage.v1.lineage_pb2 import CauseKind
from optaic.rules.pages import DEFAULT_SIZE
from optaic.rules.statuses import SEVERITY
from optaic.status.v1.status_pb2 import InstanceStatus
from optaic.status.v1.status_service_pb2 import (
    ListInstanceStatusesRequest,
    ListInstanceStatusesResponse,
    StatusCount,
)
from servicekit import pages
from servicekit.context import RequestContext
from servicekit.database import Connection
from servicekit.enums import enum_number, enum_word
from servicekit.terms import label_term
from status_service import conversion
from status_service.domain.errors import causes_not_kept, history_not_kept
from status_service.store.listing import Selection, count_statuses, is_incomplete, list_statuses
from status_service.store.past import count_past_statuses, list_past_statuses
from status_service.use_cases.dependencies import Dependencies
from status_service.use_cases.reading import stamped


async def list_instance_statuses(
    deps: Dependencies, context: RequestContext, request: ListInstanceStatusesRequest
) -> ListInstanceStatusesResponse:
    """Return a page of statuses in the projects that the caller may read, as they are or as of a time.

    Raises:
        OutOfRangeError: STATUS_HISTORY_NOT_KEPT.
        InvalidArgumentError: The past is searched by cause.
    """
    as_of = _as_of(deps, request)
    wanted = _selection(request, context.readable_projects)
    tokens = pages.PageTokens(
        deps.signer, context.tenant_id, "ListInstanceStatuses", *_filters(wanted), str(as_of)
    )
    after = tokens.decode(request.page_token).get("after", "")
    size, counts = request.page_size or DEFAULT_SIZE, dict[str, int]()
    async with deps.database.read(context.tenant_id) as connection:
        found = await _list(connection, context.tenant_id, as_of, wanted, size + 1, after)
        if request.with_counts:
            counts = await _count(connection, context.tenant_id, as_of, wanted)
        lacks = await is_incomplete(connection, context.tenant_id, wanted, is_past=as_of is not None)
    shown = pages.fit(found, size, lambda status: status.ByteSize())
    response = ListInstanceStatusesResponse(
        instance_statuses=shown, status_counts=list(_counts(counts)), is_incomplete=lacks
    )
    if len(found) > len(shown):
        response.next_page_token = tokens.encode({"after": shown[-1].instance_id})
    return response


def _as_of(deps: Dependencies, request: ListInstanceStatusesRequest) -> datetime | None:
    if not request.HasField("as_of_time"):
        return None
    as_of, kept_since = request.as_of_time.ToDatetime(UTC), deps.clock.now() - deps.kept_history
    if as_of < kept_since:
        raise history_not_kept("as_of_time", kept_since)
    if request.cause_kinds:
        raise causes_not_kept()
    return as_of


async def _list(
    connection: Connection, tenant_id: str, as_of: datetime | None, wanted: Selection, limit: int, after: str
) -> list[InstanceStatus]:
    if as_of is None:
        return [stamped(row) for row in await list_statuses(connection, tenant_id, wanted, limit, after)]
    rows = await list_past_statuses(connection, tenant_id, as_of, wanted, limit, after)
    return [
        conversion.stamped(
            conversion.past_status(
                row.instance_id, row.name, row.project_id, row.kind, row.status
            ).SerializeToString(),
            row.revision,
            row.update_time,
            row.since_time,
        )
        for row in rows
    ]


async def _count(
    connection: Connection, tenant_id: str, as_of: datetime | None, wanted: Selection
) -> dict[str, int]:
    if as_of is None:
        return await count_statuses(connection, tenant_id, wanted)
    return await count_past_statuses(connection, tenant_id, as_of, wanted)


def _selection(request: ListInstanceStatusesRequest, only: Collection[str] | None) -> Selection:
    until, since = request.unchanged_since_time, request.changed_since_time
    return Selection(
        project_id=request.project_id,
        statuses=sorted(enum_word(Status, status).upper() for status in request.statuses),
        kinds=sorted(enum_word(InstanceKind, kind) for kind in request.kinds),
        cause_kinds=sorted(enum_word(CauseKind, kind) for kind in request.cause_kinds),
        unchanged_since=until.ToDatetime(UTC) if request.HasField("unchanged_since_time") else None,
        changed_since=since.ToDatetime(UTC) if request.HasField("changed_since_time") else None,
        flow_kinds=sorted(enum_word(FlowKind, kind) for kind in request.flow_kinds),
        label_terms=sorted(label_term(key, value) for key, value in request.labels.items()),
        owner=request.owner,
        name=request.name,
        name_prefix=request.name_prefix,
        only=only,
    )


def _filters(wanted: Selection) -> Iterator[object]:
    """Yield what the caller asked for, without the projects that it may read, which may change between two pages."""
    yield from (wanted.project_id, wanted.owner, wanted.name, wanted.name_prefix)
    yield from (wanted.statuses, wanted.kinds, wanted.cause_kinds, wanted.flow_kinds, wanted.label_terms)
    yield from (str(wanted.unchanged_since), str(wanted.changed_since))


def _counts(counts: dict[str, int]) -> Iterator[StatusCount]:
    for status in SEVERITY:
        if status in counts:
            number = enum_number(Status, status.lower())
            yield StatusCount(status=number, instance_count=counts[status])
