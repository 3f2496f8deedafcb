"""List and count the statuses in the projects that the caller may read; write nothing."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from optaic.common.v1.flow_pb2 import FlowKind, Status
from optaic.instance.v1.instance_pb2 import InstanceKind
from optaic.lineage.v1.lineage_pb2 import CauseKind
from optaic.lineage.v1.lineage_service_pb2 import AsOf
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
from servicekit.times import set_time
from status_service import conversion
from status_service.domain.errors import causes_not_kept, history_not_kept, revision_not_kept
from status_service.store.listing import Selection, count_statuses, is_incomplete, list_statuses
from status_service.store.past import count_past_statuses, list_past_statuses
from status_service.store.positions import find_position, find_position_at
from status_service.use_cases.dependencies import Dependencies
from status_service.use_cases.reading import stamped


async def list_instance_statuses(
    deps: Dependencies, context: RequestContext, request: ListInstanceStatusesRequest
) -> ListInstanceStatusesResponse:
    """Return a page of statuses in the projects that the caller may read, as they are or as of a moment.

    Raises:
        OutOfRangeError: STATUS_HISTORY_NOT_KEPT.
        InvalidArgumentError: The past is searched by cause.
    """
    past, field = request.as_of if request.HasField("as_of") else None, "as_of.time"
    if request.HasField("as_of_time"):
        past, field = AsOf(time=request.as_of_time), "as_of_time"
    if past is not None and request.cause_kinds:
        raise causes_not_kept()
    wanted = _selection(request, context.readable_projects)
    moment = "" if past is None else past.SerializeToString(deterministic=True).hex()
    tokens = pages.PageTokens(
        deps.signer, context.tenant_id, "ListInstanceStatuses", *_filters(wanted), moment
    )
    position = tokens.decode(request.page_token)
    after, size, counts = position.get("after", ""), request.page_size or DEFAULT_SIZE, dict[str, int]()
    async with deps.database.read(context.tenant_id) as connection:
        shown_at = await _open(deps, connection, context.tenant_id, past, field, position.get("reached"))
        as_of = shown_at.as_of
        found = await _list(connection, context.tenant_id, as_of, wanted, size + 1, after)
        if request.with_counts:
            counts = await _count(connection, context.tenant_id, as_of, wanted)
        lacks = await is_incomplete(connection, context.tenant_id, wanted, is_past=as_of is not None)
    shown = pages.fit(found, size, lambda status: status.ByteSize())
    response = ListInstanceStatusesResponse(
        instance_statuses=shown,
        status_counts=list(_counts(counts)),
        is_incomplete=lacks,
        as_of_revision=shown_at.lineage_revision,
    )
    if shown_at.time is not None:
        set_time(response.as_of_time, shown_at.time)
    if len(found) > len(shown):
        response.next_page_token = tokens.encode(
            {"after": shown[-1].instance_id, "reached": shown_at.reached}
        )
    return response


@dataclass(frozen=True)
class _Moment:
    """The moment that a list shows: the present, a time, or a revision of the statuses."""

    as_of: datetime | int | None = None
    lineage_revision: int = 0
    time: datetime | None = None
    # All pages show the same, even if it was the present at the first of them.
    reached: Sequence[int] = ()


async def _open(
    deps: Dependencies,
    connection: Connection,
    tenant_id: str,
    past: AsOf | None,
    field: str,
    reached: Sequence[int] | None,
) -> _Moment:
    if past is None:
        return _Moment()
    kept_since = deps.clock.now() - deps.kept_history
    if past.HasField("time"):
        time = past.time.ToDatetime(UTC)
        if time < kept_since:
            raise history_not_kept(field, kept_since)
        return _Moment(time, *(await find_position_at(connection, tenant_id, time)))
    wanted = past.revision if not reached else min(past.revision, reached[0])
    found = await find_position(connection, tenant_id, wanted, kept_since)
    if found.is_empty:
        return _Moment(0)
    if found.held_revision is None or found.first_revision is None or wanted < found.first_revision:
        raise revision_not_kept("as_of.revision", found.first_revision)
    last = found.last_revision if not reached else min(found.last_revision, reached[1])
    return _Moment(last, found.held_revision, found.held_time, (found.held_revision, last))


async def _list(
    connection: Connection,
    tenant_id: str,
    as_of: datetime | int | None,
    wanted: Selection,
    limit: int,
    after: str,
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
    connection: Connection, tenant_id: str, as_of: datetime | int | None, wanted: Selection
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
