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
from servicekit.errors import FailedPreconditionError, FieldViolation
from servicekit.moved_roots import list_moved_roots, move_roots

_Meant = api.BeginDataMoveRequest | api.SwitchDataMoveRequest | api.EndDataMoveRequest
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
        if move is None:
            await _check_roots(deps, connection, tenant_id, request)
            begun = Move(request.from_root, request.to_root, deps.clock.now(), context.actor)
            await store.insert_move(connection, tenant_id, begun)
        else:
            _require_same(move, request)
        return await _answer(deps, connection, tenant_id, "BeginDataMove", request.request_id)


async def switch_data_move(
    deps: Dependencies, context: RequestContext, request: api.SwitchDataMoveRequest
) -> api.DataMove:
    """Have data read, and outputs written, at the new place.

    Raises:
        FailedPreconditionError: DATA_MOVE_NOT_FOUND, DATA_MOVE_UNDER_WAY, RUNS_ACTIVE.
        UnavailableError: lineage-service does not answer as it should.
    """
    tenant_id, payload_hash = context.tenant_id, idempotency.payload_hash(request)
    async with deps.database.transaction(tenant_id) as connection:
        stored = await idempotency.replay_or_none(
            connection, "SwitchDataMove", request.request_id, payload_hash
        )
        if stored is None:
            answer = await _switch(deps, connection, tenant_id, request)
        else:
            answer = api.DataMove.FromString(stored)
        is_under_way = await _is_switched(connection, tenant_id, request)
    # After the commit, and also to a repetition, as the first call may have died here. Until the end of the move it is told again.
    if is_under_way:
        await deps.peers.move_data_root(request.from_root, request.to_root)
    return answer


async def end_data_move(
    deps: Dependencies, context: RequestContext, request: api.EndDataMoveRequest
) -> api.DataMove:
    """Let runs begin again.

    Raises:
        FailedPreconditionError: DATA_MOVE_UNDER_WAY.
        UnavailableError: lineage-service does not answer as it should, and may not know the new place.
    """
    tenant_id, payload_hash = context.tenant_id, idempotency.payload_hash(request)
    async with deps.database.read(tenant_id) as connection:
        is_switched = await _is_switched(connection, tenant_id, request)
    if is_switched:
        await deps.peers.move_data_root(request.from_root, request.to_root)
    async with deps.database.transaction(tenant_id) as connection:
        stored = await idempotency.replay_or_none(connection, "EndDataMove", request.request_id, payload_hash)
        if stored is not None:
            return api.DataMove.FromString(stored)
        await store.lock_moves(connection, tenant_id)
        move = await store.get_move(connection, tenant_id)
        if move is not None:
            _require_same(move, request)
            # One that has switched since it was read above is refused, too: lineage-service was not told of it.
            expected = request.expected_state == api.DataMove.STATE_SWITCHED
            if {move.is_switched, is_switched} != {expected}:
                raise _under_way(move)
            await store.delete_move(connection, tenant_id)
        return await _answer(deps, connection, tenant_id, "EndDataMove", request.request_id)


async def _switch(
    deps: Dependencies, connection: Connection, tenant_id: str, request: api.SwitchDataMoveRequest
) -> api.DataMove:
    await store.lock_moves(connection, tenant_id)
    move = await store.get_move(connection, tenant_id)
    if move is None:
        raise data_move_not_found()
    _require_same(move, request)
    if not move.is_switched:
        if active := await count_active(connection, tenant_id, _MOST_ACTIVE):
            raise runs_active(active)
        await move_roots(connection, tenant_id, spellings(move.from_root), move.to_root)
        await store.mark_switched(connection, tenant_id)
    return await _answer(deps, connection, tenant_id, "SwitchDataMove", request.request_id)


def _require_same(move: Move, request: _Meant) -> None:
    """Refuse a request that means another move.

    Raises:
        FailedPreconditionError: DATA_MOVE_UNDER_WAY.
    """
    if not _is_same(move, request):
        raise _under_way(move)


def _is_same(move: Move, request: _Meant) -> bool:
    return (move.from_root, move.to_root) == (request.from_root, request.to_root)


def _under_way(move: Move) -> FailedPreconditionError:
    return data_move_under_way(move.from_root, move.to_root, is_switched=move.is_switched)


async def _is_switched(connection: Connection, tenant_id: str, request: _Meant) -> bool:
    """Return whether the move that a request means is under way, and has switched."""
    move = await store.get_move(connection, tenant_id)
    return move is not None and _is_same(move, request) and move.is_switched


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
