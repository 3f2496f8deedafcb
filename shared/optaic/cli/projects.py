"""`optaic project`: projects, which contain instances."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated

import typer

from optaic.cli.completion import complete_projects
from optaic.cli.deletions import ask, count, show_preview
from optaic.cli.naming import get_project, is_unattended
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
    print_table,
)
from optaic.cli.session import (
    DryRunOption,
    ReasonOption,
    YesOption,
    end_dry_run,
    run,
)
from optaic.cli.values import parse_labels
from optaic.client import AsyncClient, word
from optaic.instance.v1 import instance_pb2
from optaic.instance.v1 import instance_service_pb2 as api

app = typer.Typer(no_args_is_help=True)
ProjectArgument = Annotated[
    str,
    typer.Argument(help="Id or name of the project.", show_default=False, autocompletion=complete_projects),
]
EtagOption = Annotated[str, typer.Option("--etag", help="Refuse if the project has changed since this etag.")]
LabelOption = Annotated[list[str] | None, typer.Option("--label", help="name=value; may be repeated.")]


@app.command("list")
def list_projects(output: ListOutputOption = ListFormat.TABLE) -> None:
    """List projects, sorted by name."""

    async def command(client: AsyncClient) -> None:
        found = await client.projects.list()
        print_list(
            found,
            ("NAME", "STATE", "DESCRIPTION", "CREATED", "ID"),
            [
                (
                    each.name,
                    word(each, "state"),
                    each.description,
                    moment(each, "create_time"),
                    each.project_id,
                )
                for each in found
            ],
            output,
        )

    run(command)


@app.command()
def get(project: ProjectArgument, output: OutputOption = Format.TABLE) -> None:
    """Show one project."""

    async def command(client: AsyncClient) -> None:
        _show(await get_project(client, project), output)

    run(command)


@app.command()
def describe(project: ProjectArgument, output: OutputOption = Format.TABLE) -> None:
    """Show one project and its instances; `update --description` sets its description."""

    async def command(client: AsyncClient) -> None:
        found = await get_project(client, project)
        instances = await client.instances.list(project=found)
        if is_data(output):
            print_data([found, *instances], output)
            return
        _show(found, output)
        print_line(f"{'instances':<20}", str(len(instances)))
        if instances:
            print_table(
                ("NAME", "KIND", "STATE", "ID"),
                [
                    (each.name, word(each, "kind").lower(), word(each, "state"), each.instance_id)
                    for each in instances
                ],
            )

    run(command)


@app.command()
def create(
    name: Annotated[str, typer.Argument(help="Unique among projects.", show_default=False)],
    description: Annotated[str, typer.Option(help="A description for readers.")] = "",
    label: LabelOption = None,
    output: OutputOption = Format.TABLE,
) -> None:
    """Create a project."""

    async def command(client: AsyncClient) -> None:
        labels = parse_labels(label or ())
        _print(await client.projects.create(name, description=description, labels=labels), output)

    run(command)


@app.command()
def update(
    project: ProjectArgument,
    name: Annotated[str | None, typer.Option(help="The new name.")] = None,
    description: Annotated[str | None, typer.Option(help="A description for readers.")] = None,
    label: LabelOption = None,
    remove_label: Annotated[
        list[str] | None, typer.Option("--remove-label", help="Name of a label; may be repeated.")
    ] = None,
    dry_run: DryRunOption = False,
    etag: EtagOption = "",
    output: OutputOption = Format.TABLE,
) -> None:
    """Change name, description or labels; other labels stay."""

    async def command(client: AsyncClient) -> None:
        given, removed = parse_labels(label or ()), set(remove_label or ())
        found = await get_project(client, project, whole=is_unattended())
        if name is None and description is None and not given and not removed:
            raise ValueError("nothing to change; pass --name, --description, --label or --remove-label")
        if unknown := sorted(removed - set(found.labels)):
            known = ", ".join(sorted(found.labels)) or "none"
            raise ValueError(f"{found.name} has no label {', '.join(unknown)}; it has: {known}")
        labels: Mapping[str, str] | None = None
        if given or removed:
            labels = {key: value for key, value in {**found.labels, **given}.items() if key not in removed}
        answer = await client.projects.update(
            found,
            name=name,
            description=description,
            labels=labels,
            # An update replaces all labels, so those of other users must be kept.
            etag=etag or (found.etag if labels is not None else ""),
            validate_only=dry_run,
        )
        _print(answer, output)
        end_dry_run(dry_run=dry_run)

    run(command)


@app.command()
def rename(
    project: ProjectArgument,
    name: Annotated[str, typer.Argument(help="The new name.", show_default=False)],
    etag: EtagOption = "",
    output: OutputOption = Format.TABLE,
) -> None:
    """Rename a project. Change the files for `optaic apply` that name it."""

    async def command(client: AsyncClient) -> None:
        _print(
            await client.projects.rename(
                await get_project(client, project, whole=is_unattended()), name, etag=etag
            ),
            output,
        )

    run(command)


@app.command()
def delete(
    project: ProjectArgument,
    cascade: Annotated[bool, typer.Option(help="Delete everything in the project as well.")] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="List what would be deleted; change nothing.")
    ] = False,
    yes: YesOption = False,
    etag: EtagOption = "",
    reason: ReasonOption = "",
    output: OutputOption = Format.TABLE,
) -> None:
    """Start the deletion of a project; it ends with the deletion of its last instance."""

    async def look(client: AsyncClient) -> tuple[instance_pb2.Project, api.PreviewDeletionResponse]:
        found = await get_project(client, project, whole=True)
        if yes and not dry_run:
            return found, api.PreviewDeletionResponse()
        return found, await client.projects.preview_deletion(found, cascade=cascade, etag=etag)

    found, preview = run(look)
    if dry_run:
        show_preview(preview, output)
        end_dry_run(dry_run=dry_run)
        return
    if not yes:
        held = f" with {count(preview.total_size)}" if preview.total_size else ""
        ask(preview, f"project {found.name}{held}")

    async def command(client: AsyncClient) -> None:
        answer = await client.projects.delete(
            found, cascade=cascade, etag=etag, reason=reason, preview_etag=preview.preview_etag
        )
        _print(answer, output)

    run(command)


def _print(project: instance_pb2.Project, output: Format) -> None:
    if is_data(output):
        print_data(project, output)
    else:
        print_line(project.name, word(project, "state"))


def _show(project: instance_pb2.Project, output: Format) -> None:
    if is_data(output):
        print_data(project, output)
        return
    rows = [
        ("name", project.name),
        ("id", project.project_id),
        ("state", word(project, "state")),
        ("description", project.description),
        ("etag", project.etag),
        ("created", moment(project, "create_time")),
        ("updated", moment(project, "update_time")),
        *((f"label {name}", value) for name, value in sorted(project.labels.items())),
    ]
    for name, value in rows:
        print_line(f"{name:<20}", value)
