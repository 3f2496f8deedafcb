"""`optaic admin access`: which actor has which role, in a project or in the whole tenant."""

from __future__ import annotations

from typing import Annotated

import typer

from optaic.cli.naming import find_project
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
from optaic.cli.session import ProjectOption, run
from optaic.client import AsyncClient, word
from optaic.instance.v1.access_pb2 import RoleBinding
from optaic.rules.access import BOUND_ROLES
from optaic.rules.forms import is_id

app = typer.Typer(no_args_is_help=True)
ActorArgument = Annotated[
    str,
    typer.Argument(help="The actor, as its token names it (`optaic admin token list`).", show_default=False),
]
_WHOLE_TENANT = "the whole tenant"


@app.command()
def grant(
    actor: ActorArgument,
    role: Annotated[str, typer.Argument(help=f"{', '.join(BOUND_ROLES)}.", show_default=False)],
    project: ProjectOption = "",
    output: OutputOption = Format.TABLE,
) -> None:
    """Give an actor a role in a project, or without --project in the whole tenant; it replaces the role there.

    From the first binding on, an actor has only the roles that bindings give; admin and executor still come from its token.
    """

    async def command(client: AsyncClient) -> None:
        project_id = await _project_id(client, project)
        _show(await client.access.grant(actor, role, project=project_id), project, output)

    run(command)


@app.command()
def revoke(actor: ActorArgument, project: ProjectOption = "", output: OutputOption = Format.TABLE) -> None:
    """Take away an actor's role in a project, or without --project its role in the whole tenant.

    Its roles in other projects stay. Services refuse the actor within five seconds, and its open streams end within a minute.
    """

    async def command(client: AsyncClient) -> None:
        project_id = await _project_id(client, project)
        _show(await client.access.revoke(actor, project=project_id), project, output)

    run(command)


@app.command("list")
def list_bindings(
    actor: Annotated[str, typer.Option("--actor", help="Only this actor.")] = "",
    project: ProjectOption = "",
    output: ListOutputOption = ListFormat.TABLE,
) -> None:
    """List the roles that were granted, by actor and project."""

    async def command(client: AsyncClient) -> None:
        found = await client.access.list(actor=actor, project=await _project_id(client, project))
        names = {each.project_id: each.name for each in await client.projects.list()}
        print_list(
            found,
            ("ACTOR", "ROLE", "PROJECT", "SINCE", "BY", "PROJECT ID"),
            [
                (
                    each.actor,
                    word(each, "role").lower(),
                    names.get(each.project_id, "") if each.project_id else f"({_WHOLE_TENANT})",
                    moment(each, "update_time"),
                    each.updated_by,
                    each.project_id,
                )
                for each in found
            ],
            output,
        )

    run(command)


async def _project_id(client: AsyncClient, text: str) -> str:
    """Return the id of a project given by id or name; a deleted one has only its id."""
    return text if is_id(text) else await find_project(client, text, whole=True)


def _show(binding: RoleBinding, project: str, output: Format) -> None:
    if is_data(output):
        print_data(binding, output)
        return
    role = word(binding, "role").lower()
    where = f"project {project}" if project else _WHOLE_TENANT
    print_line(f"{binding.actor} {f'is {role}' if role else 'has no role any more'} in {where}")
