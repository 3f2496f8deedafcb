"""Hold a tenant's runs while its data is moved, and switch to the new place; docs/storage.md has the steps."""

from __future__ import annotations

from optaic.rules.locations import are_nested, find_root_problem, spellings
from optaic.run.v1 import data_move_service_pb2 as api
from run_service.domain.errors import data_move_not_found, data_move_under_way, invalid_fields, runs_active
from run_service.store import data_moves as store
from run_service.store.data_moves import Move
from run_service.store.submission import count_active
from run_service.use_cases.dependencies import Dependencies
from servicekit import audit, idempotency
from servicekit.context import RequestContext
from servicekit.database import Connection
from servicekit.errors import FieldViolation
from servicekit.moved_roots import list_moved_roots, move_roots

_MOST_ACTIVE = 1000  # counted


async def begin_data_move(
    deps: Dependencies, context: RequestContext, request: api.BeginDataMoveRequest
) -> api.DataMove:
    """Hold the tenant's runs.

    Raises:
        InvalidArgumentError: INVALID_ARGUMENT.
        FailedPreconditionError: DATA_MOVE_UNDER_WAY.
    """
    tenant_id, payload_hash = context.tenant_id, idempotency.payload_hash(request)
    async with deps.database.transaction(tenant_id) as connection:
        stored = await idempotency.replay_or_none(
            connection, "BeginDataMove", request.request_id, payload_hash
        )
        if stored is not None:
            return api.DataMove.FromString(stored)
        await store.lock_moves(connection, tenant_id)
        move = await store.get_move(connection, tenant_id)
        wanted = (request.from_root, request.to_root)
        if move is not None and (move.from_root, move.to_root) != wanted:
            raise data_move_under_way(move.from_root, move.to_root)
        if move is None:
            await _check_roots(deps, connection, tenant_id, request)
            await store.insert_move(connection, tenant_id, Move(*wanted, deps.clock.now(), context.actor))
        return await _answer(deps, connection, tenant_id, "BeginDataMove", request.request_id)


async def switch_data_move(
    deps: Dependencies, context: RequestContext, request: api.SwitchDataMoveRequest
) -> api.DataMove:
    """Have data read, and outputs written, at the new place.

    Raises:
        FailedPreconditionError: DATA_MOVE_NOT_FOUND, RUNS_ACTIVE.
        UnavailableError: lineage-service does not answer as it should.
    """
    tenant_id, payload_hash = context.tenant_id, idempotency.payload_hash(request)
    async with deps.database.transaction(tenant_id) as connection:
        stored = await idempotency.replay_or_none(
            connection, "SwitchDataMove", request.request_id, payload_hash
        )
        if stored is not None:
            return api.DataMove.FromString(stored)
        await store.lock_moves(connection, tenant_id)
        move = await store.get_move(connection, tenant_id)
        if move is None:
            raise data_move_not_found()
        if not move.is_switched:
            if active := await count_active(connection, tenant_id, _MOST_ACTIVE):
                raise runs_active(active)
            await move_roots(connection, tenant_id, spellings(move.from_root), move.to_root)
            await store.mark_switched(connection, tenant_id)
        answer = await _answer(deps, connection, tenant_id, "SwitchDataMove", request.request_id)
    # After the commit: until the end of the move it is told again.
    await deps.peers.move_data_root(move.from_root, move.to_root)
    return answer


async def end_data_move(
    deps: Dependencies, context: RequestContext, request: api.EndDataMoveRequest
) -> api.DataMove:
    """Let runs begin again.

    Raises:
        UnavailableError: lineage-service does not answer as it should, and may not know the new place.
    """
    tenant_id, payload_hash = context.tenant_id, idempotency.payload_hash(request)
    async with deps.database.read(tenant_id) as connection:
        move = await store.get_move(connection, tenant_id)
    if move is not None and move.is_switched:
        await deps.peers.move_data_root(move.from_root, move.to_root)
    async with deps.database.transaction(tenant_id) as connection:
        stored = await idempotency.replay_or_none(connection, "EndDataMove", request.request_id, payload_hash)
        if stored is not None:
            return api.DataMove.FromString(stored)
        await store.lock_moves(connection, tenant_id)
        if await store.get_move(connection, tenant_id) == move:
            await store.delete_move(connection, tenant_id)
        return await _answer(deps, connection, tenant_id, "EndDataMove", request.request_id)


async def _check_roots(
    deps: Dependencies, connection: Connection, tenant_id: str, request: api.BeginDataMoveRequest
) -> None:
    given = {"from_root": request.from_root, "to_root": request.to_root}
    problems = {name: text for name, root in given.items() if (text := find_root_problem(root))}
    moved = await list_moved_roots(connection, tenant_id)
    known = _root_of(deps, moved)
    if known and request.from_root not in spellings(known):
        problems.setdefault("from_root", f"is not where the tenant's data lies, which is {known}")
    if request.from_root in spellings(request.to_root):
        problems.setdefault("to_root", "is where the data lies already")
    elif are_nested([*given.values(), *moved, *moved.values()]):
        problems.setdefault(
            "to_root", "lies within another root of the tenant's data, or that within it; name another place"
        )
    if problems:
        raise invalid_fields([FieldViolation(name, text) for name, text in problems.items()])


async def _answer(
    deps: Dependencies, connection: Connection, tenant_id: str, method: str, request_id: str
) -> api.DataMove:
    """Return what a call has changed, and record it."""
    answer = await describe(deps, connection, tenant_id)
    audit.note("data_moves/" + tenant_id)
    await idempotency.store(connection, method, request_id, answer.SerializeToString())
    return answer


async def describe(deps: Dependencies, connection: Connection, tenant_id: str) -> api.DataMove:
    """Return where the tenant's data lies, and the move that is under way."""
    moved = await list_moved_roots(connection, tenant_id)
    active = await count_active(connection, tenant_id, _MOST_ACTIVE)
    described = api.DataMove(
        tenant_id=tenant_id, data_root=_root_of(deps, moved), former_roots=moved, active_run_count=active
    )
    move = await store.get_move(connection, tenant_id)
    if move is not None:
        described.state = api.DataMove.STATE_SWITCHED if move.is_switched else api.DataMove.STATE_HELD
        described.from_root, described.to_root, described.actor = move.from_root, move.to_root, move.actor
        described.begin_time.FromDatetime(move.begin_time)
    return described


def _root_of(deps: Dependencies, moved: dict[str, str]) -> str:
    """Return where the tenant's data lies; empty if that is not known."""
    configured = deps.settings.data_root
    if not configured:
        return next(iter(moved.values()), "")
    return moved.get(configured, configured)
