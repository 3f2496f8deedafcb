"""`optaic code`: the code on record for definition versions."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

import typer

from optaic.cli.completion import complete_definitions
from optaic.cli.definitions import DefinitionArgument, KindOption, VersionArgument, check_kind, find_version
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
from optaic.cli.session import DryRunOption, ReasonOption, end_dry_run, run
from optaic.client import AsyncClient
from optaic.run.v1 import run_service_pb2

app = typer.Typer(no_args_is_help=True)


@app.command("list")
def list_hashes(
    definition: Annotated[
        str, typer.Argument(help="Only this definition, by id or name.", autocompletion=complete_definitions)
    ] = "",
    version: Annotated[
        str, typer.Argument(help="The definition's version; required with a definition.")
    ] = "",
    kind: KindOption = "",
    output: ListOutputOption = ListFormat.TABLE,
) -> None:
    """List the current and earlier code hashes; for each definition version the highest number is valid."""

    async def command(client: AsyncClient) -> None:
        version_id = ""
        check_kind(kind)
        if not definition and (version or kind):
            raise ValueError("a version and --kind need a definition; name the definition first")
        if definition:
            version_id = (await find_version(client, definition, version, kind)).definition_version_id
        found = await client.definitions.code_hashes(version_id)
        _show(found, output)

    run(command)


@app.command()
def accept(
    definition: DefinitionArgument,
    version: VersionArgument,
    hash_: Annotated[
        str, typer.Option("--hash", help="The new hash, as printed in the error of the refused run.")
    ],
    reason: ReasonOption,
    kind: KindOption = "",
    dry_run: DryRunOption = False,
    output: OutputOption = Format.TABLE,
) -> None:
    """Accept changed code that means the same. From now on only this code runs; nothing becomes stale."""

    async def command(client: AsyncClient) -> None:
        found = await find_version(client, definition, version, kind)
        accepted = await client.definitions.accept_code(
            found.definition_version_id, hash_, reason, validate_only=dry_run
        )
        if is_data(output):
            print_data(accepted, output)
        else:
            print_line(accepted.definition_name, accepted.definition_version, accepted.hash)
        end_dry_run(dry_run=dry_run)

    run(command)


def _show(found: Sequence[run_service_pb2.CodeHash], output: ListFormat) -> None:
    print_list(
        found,
        ("DEFINITION", "VERSION", "NUMBER", "HASH", "BY", "WHEN", "WHY"),
        [
            (
                each.definition_name or each.definition_version_id,
                each.definition_version,
                str(each.number),
                each.hash,
                each.actor,
                moment(each, "create_time"),
                each.reason or (f"first run, {each.run_id}" if each.run_id else ""),
            )
            for each in found
        ],
        output,
        name="HASH",
    )
