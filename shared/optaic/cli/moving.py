"""`optaic admin move-data`: copy a tenant's data to another place, compare, and switch; docs/storage.md has the steps."""

from __future__ import annotations

import asyncio
import os
from contextlib import aclosing
from typing import Annotated, NoReturn

import typer

from optaic import storage
from optaic.cli.exits import Exit
from optaic.cli.output import print_line
from optaic.cli.session import YesOption, confirm, fail, run, warn
from optaic.client import AsyncClient
from optaic.moving import Copier, Outcome, open_folder
from optaic.rules.locations import normalize_root, spellings
from optaic.run.v1 import data_move_service_pb2, run_pb2

_Move = data_move_service_pb2.DataMove
_PAUSE = 1.0  # seconds until the active runs are counted again
_AT_ONCE = 8  # runs that are read at the same time
_SHOWN = 20  # problems
_ENDED = (run_pb2.RUN_STATUS_COMPLETED, run_pb2.RUN_STATUS_FAILED, run_pb2.RUN_STATUS_CANCELLED)


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
    where it was when it is called again. Then start the workers with the new OPTAIC_DATA_ROOT, and finish the move.
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
        if to:
            await _move(client, move, source, normalize_root(to), wait=wait, leave_damaged=leave_damaged)
        elif delete_source:
            await _delete_source(client, move, normalize_root(delete_source), yes=yes)
        else:
            await _end(client, move, is_given_up=give_up)

    run(command)


async def _move(
    client: AsyncClient, move: _Move, source: str, to_root: str, *, wait: bool, leave_damaged: bool
) -> None:
    if move.state == _Move.STATE_SWITCHED and move.to_root == to_root:
        # Again, as the first call may have died before all services knew.
        _tell_next(await client.data_moves.switch(move.from_root, move.to_root))
        return
    from_root = move.from_root or (normalize_root(source) if source else move.data_root)
    if not from_root:
        fail(
            "it is not known where the data lies; pass --from, the OPTAIC_DATA_ROOT of the workers",
            status=Exit.USAGE,
        )
    tenant_id = move.tenant_id
    copier = _copier(client, tenant_id, from_root, to_root)
    manifests = _Manifests(client, copier, f"{from_root}/{tenant_id}/")
    outcome = await _copy(copier, is_last=False)
    await manifests.check()
    move = await client.data_moves.begin(from_root, to_root)
    print_line("runs are held")
    if move.active_run_count and not wait:
        await client.data_moves.end(from_root, to_root, _Move.STATE_HELD)
        fail(
            f"{move.active_run_count} runs are active, so nothing was switched, and runs go on; what was copied stays. Call it again "
            "later, or pass --wait"
        )
    while move.active_run_count:
        await asyncio.sleep(_PAUSE)
        move = await client.data_moves.get()
    outcome = await _copy(copier, is_last=True)
    await manifests.check()
    _judge([*outcome.problems, *manifests.problems], leave_damaged=leave_damaged)
    print_line(f"{copier.total} files are the same on both sides")
    _tell_next(await client.data_moves.switch(from_root, to_root))


def _copier(client: AsyncClient, tenant_id: str, from_root: str, to_root: str) -> Copier:
    folders = [f"{root}/{tenant_id}" for root in (from_root, to_root)]
    _reach(client, *folders)
    return Copier(*map(open_folder, folders))


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
    except OSError as error:
        fail(f"{error}; call it again when the place can be reached")
    if outcome.removed:
        print_line(f"removed {outcome.removed} files that the source does not have")
    return outcome


def _judge(problems: list[str], *, leave_damaged: bool) -> None:
    """Print what is wrong; end the command unless it may be left so."""
    for problem in problems[:_SHOWN]:
        warn(problem)
    if len(problems) > _SHOWN:
        warn(f"and {len(problems) - _SHOWN} more")
    if problems and not leave_damaged:
        _refuse_damaged()


def _refuse_damaged() -> NoReturn:
    fail(
        "nothing was switched, and runs are held. Restore or remove these files and call it again; pass --leave-damaged to move without "
        "them; or end the move with --give-up"
    )


def _tell_next(move: _Move) -> None:
    print_line(f"data is read at {move.to_root} now, and runs are held")
    print_line(f"next: start the workers and run-service with OPTAIC_DATA_ROOT={move.to_root}")
    print_line("then: optaic admin move-data --finish")


async def _end(client: AsyncClient, move: _Move, *, is_given_up: bool) -> None:
    if move.state == _Move.STATE_UNSPECIFIED:
        fail("no move is under way")
    if is_given_up and move.state == _Move.STATE_SWITCHED:
        fail(f"the move has switched: finish it, then move back with --to {move.from_root}")
    if not is_given_up and move.state == _Move.STATE_HELD:
        fail(f"the move has not switched: call it again with --to {move.to_root}, or end it with --give-up")
    if not is_given_up:
        # What a worker has removed at the old place since, data of deleted instances, goes here, too.
        copier = _copier(client, move.tenant_id, move.from_root, move.to_root)
        await asyncio.to_thread(copier.remove_gone)
    ended = await client.data_moves.end(move.from_root, move.to_root, move.state)
    print_line(f"runs begin again; the data lies at {ended.data_root or move.from_root}")


async def _delete_source(client: AsyncClient, move: _Move, root: str, *, yes: bool) -> None:
    if root not in move.former_roots or root in spellings(move.data_root):
        fail(
            f"{root} is no former data root of the tenant; those are {', '.join(move.former_roots) or 'none'}",
            status=Exit.USAGE,
        )
    if move.state != _Move.STATE_UNSPECIFIED:
        fail("a move is under way; finish it first")
    folder = f"{root}/{move.tenant_id}"
    if not yes:
        confirm(f"Remove all data in {folder}? It is read at {move.data_root} now.")
    _reach(client, folder)
    try:
        await asyncio.to_thread(open_folder(folder).remove_all)
    except OSError as error:
        fail(f"{error}; call it again: what is removed already stays removed")
    print_line(f"removed {folder}")


class _Manifests:
    """The records that runs have of their files, compared with what was copied; each ended run once."""

    def __init__(self, client: AsyncClient, copier: Copier, folder: str) -> None:
        self._client = client
        self._copier = copier
        self._folder = folder
        self._checked: dict[str, list[str]] = {}  # run id -> problems

    @property
    def problems(self) -> list[str]:
        """Return what was found, in words."""
        return [problem for problems in self._checked.values() for problem in problems]

    async def check(self) -> None:
        """Look at the runs that have ended since the last time, and again at those of which something was wrong."""
        limit = asyncio.Semaphore(_AT_ONCE)
        async with aclosing(self._client.data_moves.each_run()) as runs:
            ended = [each.run_id async for each in runs if each.status in _ENDED and each.artifacts]
        wanted = [run_id for run_id in ended if self._checked.get(run_id) != []]

        async def look(run_id: str) -> None:
            async with limit:
                self._checked[run_id] = self._compare(await self._client.runs.get(run_id))

        await asyncio.gather(*map(look, wanted))

    def _compare(self, found: run_pb2.Run) -> list[str]:
        problems = []
        for entry in found.artifact_manifest:
            if entry.uri.startswith(self._folder):
                sha256 = self._copier.sha256_of(entry.uri.removeprefix(self._folder))
                if sha256 != entry.sha256:
                    what = f"has the SHA-256 {sha256}" if sha256 else "is not there"
                    problems.append(
                        f"{entry.uri} {what}, but run {found.run_id} wrote a file with {entry.sha256}"
                    )
        return problems
