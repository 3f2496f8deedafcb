"""`optaic admin move-data`: copy a tenant's data to another place, compare, and switch; docs/storage.md has the steps."""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import Iterator
from typing import Annotated, NoReturn

import typer

from optaic import storage
from optaic.cli.exits import Exit
from optaic.cli.moved_runs import RunRecords
from optaic.cli.output import print_line
from optaic.cli.session import YesOption, confirm, fail, run, warn
from optaic.client import AsyncClient
from optaic.moving import Copier, Outcome, open_folder, overlap
from optaic.rules.locations import are_nested, normalize_root, spellings
from optaic.run.v1 import data_move_service_pb2

_Move = data_move_service_pb2.DataMove
_PAUSE = 1.0  # seconds until the active runs are counted again
_SHOWN = 20  # problems


class _ChangedError(Exception):
    """Another call has begun, switched or ended a move meanwhile."""


def move_data(
    to: Annotated[
        str, typer.Option("--to", help="Where the data goes: a folder, or s3://bucket/prefix.")
    ] = "",
    source: Annotated[
        str,
        typer.Option("--from", help="Where the data lies; by default the data root that run-service has."),
    ] = "",
    tenant: Annotated[str, typer.Option(help="Refuse if the token is of another tenant.")] = "",
    wait: Annotated[bool, typer.Option("--wait", help="Wait for the end of active runs.")] = False,
    leave_damaged: Annotated[
        bool, typer.Option("--leave-damaged", help="Move although files are damaged, or cannot be copied.")
    ] = False,
    finish: Annotated[
        bool, typer.Option("--finish", help="Let runs begin again, after the workers have the new data root.")
    ] = False,
    give_up: Annotated[
        bool, typer.Option("--give-up", help="End a move that has not switched; the data stays where it is.")
    ] = False,
    delete_source: Annotated[
        str, typer.Option("--delete-source", help="Remove the tenant's data from this former data root.")
    ] = "",
    yes: YesOption = False,
) -> None:
    """Move the tenant's data to another place: nothing becomes stale, and no flow or version changes.

    It copies while runs go on, then holds new runs, copies the rest, compares all by SHA-256, and switches. Interrupted, it goes on
    where it was when it is called again. Then start the tenant's workers with the new OPTAIC_DATA_ROOT, and finish the move.
    """
    if sum(map(bool, (to, finish, give_up, delete_source))) != 1:
        fail("name one of --to, --finish, --give-up and --delete-source", status=Exit.USAGE)

    async def command(client: AsyncClient) -> None:
        move = await client.data_moves.get()
        if tenant and tenant != move.tenant_id:
            fail(
                f"the token is of the tenant {move.tenant_id}, not of {tenant}; pass a token of {tenant}",
                status=Exit.USAGE,
            )
        try:
            if to:
                await _move(client, move, source, normalize_root(to), wait=wait, leave_damaged=leave_damaged)
            elif delete_source:
                await _delete_source(client, move, normalize_root(delete_source), yes=yes)
            else:
                await _end(client, move, is_given_up=give_up)
        except OSError as error:
            fail(f"{error}; call it again when the place can be reached, and it goes on where it was")
        except _ChangedError as error:
            fail(str(error))

    run(command)


async def _move(
    client: AsyncClient, move: _Move, source: str, to_root: str, *, wait: bool, leave_damaged: bool
) -> None:
    if move.state != _Move.STATE_UNSPECIFIED:
        _require_named(move, source, to_root)
        to_root = move.to_root
    if move.state == _Move.STATE_SWITCHED:
        # Again, as the first call may have died before all services knew.
        _tell_next(await client.data_moves.switch(move.from_root, to_root))
        return
    from_root = move.from_root or (normalize_root(source) if source else move.data_root)
    _require_roots(move, from_root, to_root)
    watch = _Watch(client, move)
    copier = _copier(client, watch, from_root, to_root)
    records = RunRecords(client, copier, from_root, move.tenant_id)
    if await records.are_elsewhere():  # then the target may be where they are
        fail(
            f"no completed run has outputs below {from_root}; pass --from, the OPTAIC_DATA_ROOT of the workers"
        )
    if move.state == _Move.STATE_UNSPECIFIED and to_root not in move.former_roots:
        _require_no_strangers(to_root, await asyncio.to_thread(copier.list_strangers))
    await _copy(copier, is_last=False)
    await records.check()
    await watch.hold(from_root, to_root)
    if watch.move.active_run_count and not wait:
        await _let_go(client, watch.move, was_held=move.state == _Move.STATE_HELD)
    with _saying_that_runs_are_held():
        move = await watch.look()
        while move.active_run_count:
            await asyncio.sleep(_PAUSE)
            move = await watch.look()
        outcome = await _copy(copier, is_last=True)
        await records.check()
        _judge([*outcome.problems, *records.problems], outcome.unnamed, leave_damaged=leave_damaged)
        print_line(f"{copier.total} files are the same on both sides")
        switched = await client.data_moves.switch(from_root, to_root)
    _tell_next(switched)


def _require_named(move: _Move, source: str, to_root: str) -> None:
    """Refuse another move than the one that is under way, before anything is copied."""
    if to_root in spellings(move.to_root) and (
        not source or normalize_root(source) in spellings(move.from_root)
    ):
        return
    option = "--finish" if move.state == _Move.STATE_SWITCHED else "--give-up"
    fail(
        f"the tenant's data is being moved from {move.from_root} to {move.to_root} already; end that move first, with {option}"
    )


def _require_roots(move: _Move, from_root: str, to_root: str) -> None:
    """Refuse roots that run-service would refuse, before anything is copied over the files of a target that is in use."""
    if not from_root:
        fail(
            "it is not known where the data lies; pass --from, the OPTAIC_DATA_ROOT of the workers",
            status=Exit.USAGE,
        )
    if move.data_root and from_root not in spellings(move.data_root):
        fail(
            f"the tenant's data lies at {move.data_root}, not at {from_root}; leave out --from",
            status=Exit.USAGE,
        )
    if are_nested([from_root, to_root, *move.former_roots]):
        fail(
            f"{to_root} lies within another root of the tenant's data, or one of those lies within it; name another place",
            status=Exit.USAGE,
        )


def _require_no_strangers(to_root: str, instance_ids: list[str]) -> None:
    """Refuse a target that another installation may use: the last pass removes what the source does not have."""
    if instance_ids:
        fail(
            f"{to_root} has data of {len(instance_ids)} instances that the source does not have, such as {instance_ids[0]}; name another "
            "place, or remove this data by hand if an earlier move has left it"
        )


async def _let_go(client: AsyncClient, move: _Move, *, was_held: bool) -> NoReturn:
    """End a hold that this command has begun, because runs are active and it may not wait for them."""
    active = f"{move.active_run_count} runs are active, so nothing was switched; what was copied stays"
    if was_held:
        fail(f"{active}. Runs stay held since an earlier call: pass --wait, or end the move with --give-up")
    with _saying_that_runs_are_held():
        await client.data_moves.end(move.from_root, move.to_root, _Move.STATE_HELD)
    fail(f"{active}, and runs go on. Call it again later, or pass --wait")


class _Watch:
    """The move as this command knows it. It notices whoever begins, switches or ends one meanwhile."""

    def __init__(self, client: AsyncClient, move: _Move) -> None:
        self._client = client
        self._loop = asyncio.get_running_loop()
        self.move = move

    async def look(self) -> _Move:
        """Return how the move is now.

        Raises:
            _ChangedError: it is another one, or in another state.
        """
        found = await self._client.data_moves.get()
        if _identity_of(found) != _identity_of(self.move):
            raise _ChangedError(
                "another call has begun, switched or ended a move of the tenant meanwhile, so this one changes nothing more; look what that "
                "call does, then call it again"
            )
        self.move = found
        return found

    def permit(self) -> None:
        """Look, in a thread that copies: what is at the target may be read and written by runs after a switch."""
        asyncio.run_coroutine_threadsafe(self.look(), self._loop).result()

    async def hold(self, from_root: str, to_root: str) -> None:
        """Have runs held by this move.

        Raises:
            _ChangedError: another call has switched it.
        """
        await self.look()
        self.move = await self._client.data_moves.begin(from_root, to_root)
        if self.move.state != _Move.STATE_HELD:
            raise _ChangedError(
                "another call has switched this move meanwhile; call it again to see what is next"
            )
        print_line("runs are held")


def _identity_of(move: _Move) -> _Move:
    """Return what stays the same of a move as long as nobody begins, switches or ends one."""
    same = _Move()
    same.CopyFrom(move)
    same.ClearField("active_run_count")
    return same


@contextlib.contextmanager
def _saying_that_runs_are_held() -> Iterator[None]:
    """Say what to do if the block fails, or is interrupted."""
    try:
        yield
    except _ChangedError:
        raise
    except BaseException:
        warn("runs are held until the move ends: call it again, or end it with --give-up")
        raise


def _copier(client: AsyncClient, watch: _Watch, from_root: str, to_root: str) -> Copier:
    source, target = (f"{root}/{watch.move.tenant_id}" for root in (from_root, to_root))
    _reach(client, source, target)
    if overlap(source, target):
        fail(
            f"{source} and {target} are one folder, or one lies within the other; name another place",
            status=Exit.USAGE,
        )
    return Copier(open_folder(source), open_folder(target), watch.permit)


def _reach(client: AsyncClient, *uris: str) -> None:
    """Have this process reach the object store that one of the folders is in."""
    for uri in uris:
        if storage.is_remote(uri):
            found = client.data_moves.find_object_store(f"{uri}/")
            storage.install(storage.Access.from_environment({**os.environ, **found}))


async def _copy(copier: Copier, *, is_last: bool) -> Outcome:
    def tell(outcome: Outcome, total: int) -> None:
        print_line(f"copied {outcome.copied}, the same {outcome.equal}, of {total} files")

    try:
        outcome = await asyncio.to_thread(copier.copy, tell, is_last=is_last)
    except asyncio.CancelledError:
        copier.stop()
        raise
    if outcome.removed:
        print_line(f"removed {outcome.removed} files that the source does not have")
    return outcome


def _judge(problems: list[str], unnamed: int, *, leave_damaged: bool) -> None:
    """Print what is wrong; end the command unless it may be left so."""
    for problem in problems[:_SHOWN]:
        warn(problem)
    if more := len(problems[_SHOWN:]) + unnamed:
        warn(f"and {more} more")
    if problems and not leave_damaged:
        fail(
            "nothing was switched. Restore or remove these files and call it again; or pass --leave-damaged to move without them"
        )


def _tell_next(move: _Move) -> None:
    root, tenant_id = move.to_root, move.tenant_id
    print_line(f"data of the tenant {tenant_id} is read at {root} now, and its runs are held")
    print_line(f"next: start the workers of the tenant {tenant_id} with OPTAIC_DATA_ROOT={root}, no others")
    print_line("list this root for the gateway, too, in OPTAIC_FURTHER_DATA_ROOTS")
    print_line("start run-service with it only once every tenant has moved there")
    print_line("then: optaic admin move-data --finish")


async def _end(client: AsyncClient, move: _Move, *, is_given_up: bool) -> None:
    if move.state == _Move.STATE_UNSPECIFIED:
        fail("no move is under way")
    if is_given_up and move.state == _Move.STATE_SWITCHED:
        fail(f"the move has switched: finish it, then move back with --to {move.from_root}")
    if not is_given_up and move.state == _Move.STATE_HELD:
        fail(f"the move has not switched: call it again with --to {move.to_root}, or end it with --give-up")
    ended = await client.data_moves.end(move.from_root, move.to_root, move.state)
    print_line(f"runs begin again; the data lies at {ended.data_root or move.from_root}")


async def _delete_source(client: AsyncClient, move: _Move, root: str, *, yes: bool) -> None:
    folder = _require_former(move, root)
    if not yes:
        confirm(f"Remove all data in {folder}? It is read at {move.data_root} now.")
        folder = _require_former(await client.data_moves.get(), root)
    _reach(client, folder)
    await asyncio.to_thread(open_folder(folder).remove_all)
    print_line(f"removed {folder}")


def _require_former(move: _Move, root: str) -> str:
    """Return the tenant's folder below a former root; refuse one where its data still is."""
    if root not in move.former_roots or root in spellings(move.data_root):
        fail(
            f"{root} is no former data root of the tenant; those are {', '.join(move.former_roots) or 'none'}",
            status=Exit.USAGE,
        )
    if move.state != _Move.STATE_UNSPECIFIED:
        fail("a move is under way; finish it first")
    folder, present = (f"{each}/{move.tenant_id}" for each in (root, move.data_root))
    if overlap(folder, present):
        fail(
            f"{folder} and {present}, where the data is, are one folder, or one lies within the other; nothing was removed",
            status=Exit.USAGE,
        )
    return folder
