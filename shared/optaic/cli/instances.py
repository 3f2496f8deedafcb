"""`optaic instance`: instances, which are configured definitions."""

from __future__ import annotations

import json
from typing import Annotated

import typer
from google.protobuf import json_format
from google.protobuf.struct_pb2 import Value

from optaic.cli import editing, promotions
from optaic.cli.definitions import find_definition
from optaic.cli.deletions import ask, count, show_preview
from optaic.cli.filters import FilterOption, combine
from optaic.cli.naming import find_instance, find_project, is_unattended, paths_of
from optaic.cli.output import (
    Format,
    ListFormat,
    ListOutputOption,
    OutputOption,
    Wide,
    is_data,
    moment,
    print_data,
    print_line,
    print_list,
)
from optaic.cli.session import (
    DryRunOption,
    EtagOption,
    InstanceArgument,
    ProjectOption,
    ReasonOption,
    YesOption,
    end_dry_run,
    run,
)
from optaic.cli.shown import show_instance
from optaic.cli.values import parse_labels
from optaic.client import AsyncClient, word
from optaic.instance.v1 import instance_pb2
from optaic.instance.v1 import instance_service_pb2 as api

app = typer.Typer(no_args_is_help=True)
for other in (
    editing.create,
    editing.update,
    promotions.remove_champion,
    promotions.promotions,
    promotions.promote_model,
):
    app.command()(other)
_WIDE = ("PROJECT", "DEFINITION", "VERSION", "OWNER", "LABELS", "UPDATED")


@app.command("list")
def list_instances(
    project: ProjectOption = "",
    kind: Annotated[list[str] | None, typer.Option(help="Only this kind, for example dataset.")] = None,
    state: Annotated[list[str] | None, typer.Option(help="Only in this state, for example paused.")] = None,
    label: Annotated[
        list[str] | None, typer.Option(help="Only with this label, name=value; may be repeated.")
    ] = None,
    owner: Annotated[str, typer.Option(help="Only of this owner.")] = "",
    name: Annotated[str, typer.Option(help="Only of this name.")] = "",
    definition: Annotated[
        str,
        typer.Option(help="Only those that use this definition, by id or name, directly or in a component."),
    ] = "",
    filters: FilterOption = None,
    output: ListOutputOption = ListFormat.TABLE,
) -> None:
    """List instances to which all filters apply, sorted by name."""
    several, single = combine(
        filters,
        {"kind": kind, "state": state, "label": label},
        {"owner": owner, "name": name, "definition": definition},
    )

    async def command(client: AsyncClient) -> None:
        found = await client.instances.list(
            project=await find_project(client, project),
            kinds=several["kind"],
            states=several["state"],
            labels=parse_labels(several["label"]),
            owner=single["owner"],
            name=single["name"],
            definition=await find_definition(client, used) if (used := single["definition"]) else "",
        )
        paths = await paths_of(client, output)
        print_list(
            found,
            ("NAME", "KIND", "STATE", "REVISION", "FLOWS", "ID", *map(Wide, _WIDE)),
            [
                (
                    f"{paths.get(each.project_id, '')}{each.name}",
                    word(each, "kind").lower(),
                    word(each, "state"),
                    str(each.revision),
                    ", ".join(word(flow, "flow_kind").lower() for flow in each.flows),
                    each.instance_id,
                    each.project_id,
                    each.definition_name,
                    each.definition_version,
                    each.owner,
                    ", ".join(f"{name}={value}" for name, value in sorted(each.labels.items())),
                    moment(each, "update_time"),
                )
                for each in found
            ],
            output,
        )

    run(command)


@app.command()
def get(instance: InstanceArgument, project: ProjectOption = "", output: OutputOption = Format.TABLE) -> None:
    """Show one instance."""

    async def command(client: AsyncClient) -> None:
        found = await find_instance(client, instance, project)
        if is_data(output):
            print_data(found, output)
            return
        rows = [
            ("name", found.name),
            ("id", found.instance_id),
            ("kind", word(found, "kind").lower()),
            ("state", word(found, "state")),
            ("project", found.project_id),
            ("revision", str(found.revision)),
            ("etag", found.etag),
            ("updated", moment(found, "update_time")),
        ]
        rows += [
            (f"flow {word(flow, 'flow_kind').lower()}", flow.prefect_deployment_name) for flow in found.flows
        ]
        rows += [(f"upstream {each.role}", each.resource_id) for each in found.upstream_refs]
        rows += [(each.type, f"{each.reason}: {each.message}") for each in found.conditions]
        for name, value in rows:
            print_line(f"{name:<20}", value)

    run(command)


@app.command()
def revisions(
    instance: InstanceArgument, project: ProjectOption = "", output: ListOutputOption = ListFormat.TABLE
) -> None:
    """List the revisions of an instance, newest first; `diff` compares two of them."""

    async def command(client: AsyncClient) -> None:
        found = await client.instances.revisions(await find_instance(client, instance, project))
        print_list(
            found,
            ("REVISION", "STATE", "AUTHOR", "TIME", "REASON"),
            [
                (
                    str(each.instance.revision),
                    word(each.instance, "state"),
                    each.author,
                    moment(each, "create_time"),
                    each.reason,
                )
                for each in found
            ],
            output,
        )

    run(command)


@app.command()
def diff(
    instance: InstanceArgument,
    from_revision: Annotated[int, typer.Argument(min=1, help="The older revision.", show_default=False)],
    to_revision: Annotated[int, typer.Argument(min=0, help="The newer revision; 0 means the newest.")] = 0,
    project: ProjectOption = "",
    output: ListOutputOption = ListFormat.TABLE,
) -> None:
    """Show every field that differs between two revisions."""

    async def command(client: AsyncClient) -> None:
        found = await find_instance(client, instance, project)
        changes = await client.instances.diff(found, from_revision, to_revision)
        print_list(
            changes,
            ("FIELD", "FROM", "TO"),
            [
                (
                    each.path,
                    _value(each.from_value) if each.HasField("from_value") else "",
                    _value(each.to_value) if each.HasField("to_value") else "",
                )
                for each in changes
            ],
            output,
        )

    run(command)


@app.command()
def pause(
    instance: InstanceArgument,
    etag: EtagOption = "",
    reason: ReasonOption = "",
    project: ProjectOption = "",
    output: OutputOption = Format.TABLE,
) -> None:
    """Stop scheduled runs; runs on request continue."""

    async def command(client: AsyncClient) -> None:
        found = await find_instance(client, instance, project, whole=is_unattended())
        show_instance(await client.instances.pause(found, etag=etag, reason=reason), output)

    run(command)


@app.command()
def resume(
    instance: InstanceArgument,
    etag: EtagOption = "",
    reason: ReasonOption = "",
    project: ProjectOption = "",
    output: OutputOption = Format.TABLE,
) -> None:
    """Start scheduled runs again."""

    async def command(client: AsyncClient) -> None:
        found = await find_instance(client, instance, project, whole=is_unattended())
        show_instance(await client.instances.resume(found, etag=etag, reason=reason), output)

    run(command)


@app.command()
def delete(
    instance: InstanceArgument,
    cascade: Annotated[bool, typer.Option(help="Delete all dependants as well.")] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="List what would be deleted; change nothing.")
    ] = False,
    yes: YesOption = False,
    etag: EtagOption = "",
    reason: ReasonOption = "",
    project: ProjectOption = "",
    output: OutputOption = Format.TABLE,
) -> None:
    """Start the deletion of an instance. Its data stays for a grace period; see `deleted`."""

    async def look(client: AsyncClient) -> tuple[instance_pb2.Instance, api.PreviewDeletionResponse]:
        found = await find_instance(client, instance, project, whole=True)
        if yes and not dry_run:
            return found, api.PreviewDeletionResponse()
        return found, await client.instances.preview_deletion(found, cascade=cascade, etag=etag)

    found, preview = run(look)
    if dry_run:
        show_preview(preview, output)
        end_dry_run(dry_run=dry_run)
        return
    if not yes:
        ask(preview, count(preview.total_size) if preview.total_size else found.name)

    async def command(client: AsyncClient) -> None:
        answer = await client.instances.delete(
            found, etag=etag, reason=reason, cascade=cascade, preview_etag=preview.preview_etag
        )
        show_instance(answer, output)

    run(command)


@app.command()
def deleted(output: ListOutputOption = ListFormat.TABLE) -> None:
    """List deleted instances whose data still exists, and when it will be removed."""

    async def command(client: AsyncClient) -> None:
        found = await client.instances.data_removals()
        print_list(
            found,
            ("NAME", "KIND", "DELETED", "DATA STAYS UNTIL", "TRIED", "PROBLEM", "ID"),
            [
                (
                    each.name,
                    word(each, "kind").lower(),
                    moment(each, "delete_time"),
                    moment(each, "remove_time"),
                    str(each.attempts),
                    each.problem,
                    each.instance_id,
                )
                for each in found
            ],
            output,
        )

    run(command)


@app.command()
def promote(
    instance: InstanceArgument,
    min_value: Annotated[
        float | None, typer.Option(help="Smallest allowed value; unbounded by default.")
    ] = None,
    max_value: Annotated[
        float | None, typer.Option(help="Largest allowed value; unbounded by default.")
    ] = None,
    neutral_value: Annotated[float, typer.Option(help='The value that means "no opinion".')] = 0.0,
    nan_policy: Annotated[
        str, typer.Option(help="What to do with NaN: keep, drop, neutral or fail.")
    ] = "keep",
    bounds_policy: Annotated[
        str, typer.Option(help="What to do with a value out of bounds: reject or winsorize.")
    ] = "reject",
    index_column: Annotated[
        list[str] | None, typer.Option(help="A column that identifies a row; by default date and entity.")
    ] = None,
    dry_run: DryRunOption = False,
    etag: EtagOption = "",
    reason: ReasonOption = "",
    project: ProjectOption = "",
    output: OutputOption = Format.TABLE,
) -> None:
    """Turn a dataset into a signal in place; its data must already satisfy the contract."""
    contract = {
        "min_value": min_value,
        "max_value": max_value,
        "neutral_value": neutral_value,
        "nan_policy": nan_policy,
        "bounds_policy": bounds_policy,
        "index_columns": index_column or [],
    }

    async def command(client: AsyncClient) -> None:
        found = await find_instance(client, instance, project, whole=is_unattended())
        answer = await client.instances.promote_dataset(
            found, contract, etag=etag, reason=reason, validate_only=dry_run
        )
        show_instance(answer, output, "could become a signal" if dry_run else "is a signal now")
        end_dry_run(dry_run=dry_run)

    run(command)


def _value(value: Value) -> str:
    return json.dumps(json_format.MessageToDict(value))
