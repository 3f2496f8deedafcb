"""`optaic definition`: reusable code, versioned."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Annotated

import grpc
import typer

from optaic.cli.completion import complete_definitions
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
from optaic.cli.session import (
    DryRunOption,
    FileOption,
    ReasonOption,
    YesOption,
    confirm,
    end_dry_run,
    run,
    warn,
)
from optaic.client import AsyncClient, word
from optaic.client.existence import near
from optaic.client.messages import fill
from optaic.definition.v1 import definition_pb2, definition_service_pb2
from optaic.errors import NotFoundError
from optaic.rules.forms import is_id

app = typer.Typer(no_args_is_help=True)
DefinitionArgument = Annotated[
    str,
    typer.Argument(
        help="Id or name of the definition.", show_default=False, autocompletion=complete_definitions
    ),
]
VersionArgument = Annotated[str, typer.Argument(help="For example 1.0.0.", show_default=False)]
KindOption = Annotated[
    str,
    typer.Option("--kind", help="The definition's kind; needed where several definitions have this name."),
]
_STEPS = {
    "activate": "Activate a draft: new instances get this version, and instances that track the newest version move to it.",
    "deprecate": "Mark a version as no longer to be used. Instances keep working.",
}
_PUBLISHED = {field.name for field in definition_service_pb2.PublishDefinitionRequest.DESCRIPTOR.fields[:4]}


@app.command("list")
def list_definitions(
    kind: Annotated[str, typer.Option(help="Only this kind, for example pipeline.")] = "",
    output: ListOutputOption = ListFormat.TABLE,
) -> None:
    """List definitions, sorted by name."""

    async def command(client: AsyncClient) -> None:
        found = await client.definitions.list(kind or 0)
        print_list(
            found,
            ("NAME", "KIND", "NEWEST", "DESCRIPTION", "ID"),
            [
                (
                    each.name,
                    word(each, "kind").lower(),
                    each.newest_version.version,
                    each.description,
                    each.definition_id,
                )
                for each in found
            ],
            output,
        )

    run(command)


@app.command()
def get(definition: DefinitionArgument, kind: KindOption = "", output: OutputOption = Format.TABLE) -> None:
    """Show one definition and its versions."""

    async def command(client: AsyncClient) -> None:
        found = await find_definition(client, definition, kind)
        if is_data(output):
            print_data(found, output)
            return
        rows = [
            ("name", found.name),
            ("id", found.definition_id),
            ("kind", word(found, "kind").lower()),
            ("description", found.description),
        ]
        for name, value in rows:
            print_line(f"{name:<20}", value)
        for each in await client.definitions.versions(found.definition_id):
            print_line(f"{f'version {each.version}':<20}", word(each, "state"), moment(each, "create_time"))

    run(command)


@app.command()
def publish(
    file: FileOption,
    draft: Annotated[
        bool, typer.Option(help="Publish as a draft; instances do not move to it until it is activated.")
    ] = False,
    dry_run: Annotated[bool, typer.Option(help="Check and report; store nothing.")] = False,
    output: OutputOption = Format.TABLE,
) -> None:
    """Publish the version in a file (name, kind, description, definition_version), and report what it breaks."""

    async def command(client: AsyncClient) -> None:
        from optaic.cli.documents import placing, read_yaml  # noqa: PLC0415 - slow to import, and rarely needed

        found = read_yaml(file)
        content = found.values[0] if len(found.values) == 1 else None
        if not isinstance(content, dict) or not {"name", "kind", "definition_version"} <= set(content):
            raise ValueError(f"{file} needs the fields name, kind and definition_version")
        if unknown := sorted(set(content) - _PUBLISHED):
            raise ValueError(f"{file} has unknown fields: {', '.join(map(str, unknown))}")
        with placing(found, "documents[0]."):
            published = await client.definitions.publish(**content, draft=draft, validate_only=dry_run)
        if is_data(output):
            print_data(published, output)
        else:
            print_line(published.definition_name, published.version, word(published, "state"))
            _show(published.publication_report)
        end_dry_run(dry_run=dry_run)

    run(command)


def _make_step(name: str) -> Callable[..., None]:
    """Return the command that takes a version to its next state."""

    def step(
        definition: DefinitionArgument,
        version: VersionArgument,
        kind: KindOption = "",
        dry_run: DryRunOption = False,
        reason: ReasonOption = "",
        output: OutputOption = Format.TABLE,
    ) -> None:
        run(_take(name, (definition, version, kind), reason, output, dry_run=dry_run))

    return step


for _name, _help in _STEPS.items():
    app.command(_name, help=_help)(_make_step(_name))


@app.command()
def retire(
    definition: DefinitionArgument,
    version: VersionArgument,
    kind: KindOption = "",
    dry_run: DryRunOption = False,
    yes: YesOption = False,
    reason: ReasonOption = "",
    output: OutputOption = Format.TABLE,
) -> None:
    """Retire a deprecated version for ever: new instances cannot use it, existing instances keep working."""
    if not dry_run and not yes:

        async def look(client: AsyncClient) -> definition_pb2.DefinitionVersion:
            return await find_version(client, definition, version, kind)

        found = run(look)
        confirm(f"Retire version {found.version} of {found.definition_name}? It cannot be used again.")
    run(_take("retire", (definition, version, kind), reason, output, dry_run=dry_run))


def _take(
    step: str, named: tuple[str, str, str], reason: str, output: Format, *, dry_run: bool
) -> Callable[[AsyncClient], Awaitable[None]]:
    """Return what takes the version that is named (definition, version, kind) a step further, and shows it."""

    async def command(client: AsyncClient) -> None:
        found = await find_version(client, *named)
        take = getattr(client.definitions, step)
        answer = await take(found.definition_version_id, reason, validate_only=dry_run)
        if is_data(output):
            print_data(answer, output)
        else:
            print_line(answer.definition_name, answer.version, word(answer, "state"))
        end_dry_run(dry_run=dry_run)

    return command


def _show(report: definition_pb2.PublicationReport) -> None:
    if report.previous_version:
        print_line(word(report, "compatibility").lower(), f"with version {report.previous_version}")
    for change in report.schema_changes:
        print_line(change.path, change.description, word(change, "compatibility").lower())
    for note in report.schema_notes:
        warn(f"{note.path}: {note.description}")
    for each in report.tracking_instances:
        print_line(f"tracks the newest version: {each.name}", "; ".join(each.violations) or "fits")
    if hidden := report.tracking_instance_count - len(report.tracking_instances):
        print_line(f"and {hidden} more instances")


def check_kind(kind: str) -> int:
    """Return the number of a kind of definitions; 0 where none is given.

    Raises:
        ValueError: There is no such kind.
    """
    asked = definition_service_pb2.GetDefinitionRequest()
    fill(asked, {"kind": kind or 0})
    return int(asked.kind)


async def find_definition(client: AsyncClient, text: str, kind: str = "") -> definition_pb2.Definition:
    """Return the definition given by id or name.

    Raises:
        NotFoundError: There is none.
        ValueError: Several have this name, or it is of another kind.
    """
    wanted = check_kind(kind)
    if is_id(text):
        given = await client.definitions.get(text)
        if wanted and given.kind != wanted:
            raise ValueError(
                f"definition {text} is a {word(given, 'kind').lower()}, not a {kind}; correct --kind or leave it out"
            )
        return given
    if kind:
        return await client.definitions.get(kind=kind, name=text)
    listed = await client.definitions.list()
    found = [each for each in listed if each.name == text]
    if not found:
        text = f"there is no definition named {text!r}{near(text, [each.name for each in listed])}"
        raise NotFoundError(grpc.StatusCode.NOT_FOUND, "DEFINITION_NOT_FOUND", text)
    if len(found) != 1:
        kinds = ", ".join(word(each, "kind").lower() for each in found)
        raise ValueError(f"several definitions are named {text!r}; pass --kind with one of: {kinds}")
    return found[0]


async def find_version(
    client: AsyncClient, definition: str, version: str, kind: str
) -> definition_pb2.DefinitionVersion:
    """Return a version of the definition given by id or name."""
    found = await find_definition(client, definition, kind)
    versions = await client.definitions.versions(found.definition_id)
    for each in versions:
        if each.version == version:
            return each
    known = ", ".join(each.version for each in versions)
    raise NotFoundError(
        grpc.StatusCode.NOT_FOUND,
        "DEFINITION_VERSION_NOT_FOUND",
        f"{found.name} has no version {version!r}; it has: {known}",
    )
