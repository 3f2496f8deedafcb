"""`optaic run cancel`, `retry` and `activities`: end a run, try it again, see what happened to it."""

from __future__ import annotations

from typing import Annotated

import typer

from optaic.cli.output import (
    Format,
    ListFormat,
    ListOutputOption,
    OutputOption,
    is_data,
    moment,
    print_data,
    print_line,
    print_list,
)
from optaic.cli.session import ReasonOption, RunArgument, run
from optaic.client import AsyncClient, word
from optaic.run.v1 import run_pb2


def cancel(run_id: RunArgument, reason: ReasonOption = "", output: OutputOption = Format.TABLE) -> None:
    """Cancel a run; the worker stops as soon as it learns of it."""

    async def command(client: AsyncClient) -> None:
        _show(await client.runs.cancel(run_id, reason), output)

    run(command)


def retry(
    run_id: RunArgument,
    force: Annotated[
        bool, typer.Option("--force", help="Run although upstreams are not ready; needs --reason.")
    ] = False,
    reason: Annotated[str, typer.Option(help="The reason for --force; recorded with the run.")] = "",
    output: OutputOption = Format.TABLE,
) -> None:
    """Submit a new run of the same flow, with the same mode and parameters."""

    async def command(client: AsyncClient) -> None:
        handle = await client.runs.retry(run_id, force=force, force_reason=reason)
        _show(handle.run, output)

    run(command)


def activities(run_id: RunArgument, output: ListOutputOption = ListFormat.TABLE) -> None:
    """List what happened to a run, in order of time, and who did it."""

    async def command(client: AsyncClient) -> None:
        found = await client.runs.activities(run_id)
        print_list(
            found,
            ("TIME", "TYPE", "ACTOR", "MESSAGE"),
            [(moment(each, "create_time"), each.type, each.actor, each.message) for each in found],
            output,
            name="TYPE",
        )

    run(command)


def _show(found: run_pb2.Run, output: Format) -> None:
    if is_data(output):
        print_data(found, output)
    else:
        print_line(found.run_id, word(found, "flow_kind").lower(), word(found, "status"))
