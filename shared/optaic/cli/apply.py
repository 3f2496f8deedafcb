"""`optaic apply`, `diff` and `export`: definitions and instances by file."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Annotated, Any, NamedTuple

import typer

from optaic.apply import yaml_text
from optaic.apply.documents import read_documents
from optaic.apply.execution import definitions_of, execute, projects_of, read_existing
from optaic.apply.export import UNMANAGED, Definitions, export_documents, unsaid
from optaic.apply.plan import Action, Existing, Verb, make_plan
from optaic.cli.completion import complete_projects
from optaic.cli.documents import placing, read_yaml
from optaic.cli.exits import Exit
from optaic.cli.impact import show_impact
from optaic.cli.output import Format, OutputOption, is_data, print_data, print_line
from optaic.cli.session import FileOption, YesOption, confirm, end_dry_run, run, warn
from optaic.client import AsyncClient
from optaic.common.v1.flow_pb2 import FlowRef
from optaic.rules.forms import is_id
from redaction import redact_field

AdoptOption = Annotated[
    bool, typer.Option("--adopt", help="Take over instances that another manager owns, and change them.")
]
PruneOption = Annotated[
    bool, typer.Option("--prune", help="Delete the instances of this manager that the file no longer has.")
]


def apply(
    file: FileOption,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Check everything and change nothing.")] = False,
    adopt: AdoptOption = False,
    prune: PruneOption = False,
    yes: YesOption = False,
    output: OutputOption = Format.TABLE,
) -> None:
    """Create and change definitions and instances so that they match a file. Asks before it deletes."""

    async def begin(client: AsyncClient) -> _Plan | None:
        plan = await _make(client, file, adopt=adopt, prune=prune)
        if not dry_run and not yes and plan.final:
            return plan
        await _carry_out(client, plan, output, dry_run=dry_run)
        end_dry_run(dry_run=dry_run)
        return None

    plan = run(begin)
    if plan is None:
        return
    typer.secho("This cannot be undone:", err=True)
    for each in plan.final:
        typer.secho(f"{each.verb:<10}  {each.kind:<10}  {each.name}", err=True)
    confirm(f"Apply the file with these {len(plan.final)} steps?")

    async def go_on(client: AsyncClient) -> None:
        await _carry_out(client, plan, output, dry_run=False)

    run(go_on)


def diff(
    file: FileOption,
    adopt: AdoptOption = False,
    prune: PruneOption = False,
    output: OutputOption = Format.TABLE,
) -> None:
    """Show what `optaic apply` would change, field by field. The exit status is 1 for changes, 2 for errors."""

    async def command(client: AsyncClient) -> None:
        plan = await _make(client, file, adopt=adopt, prune=prune)
        await _carry_out(client, plan, output, dry_run=True)
        if plan.actions:
            raise typer.Exit(1)

    run(command, failed=Exit.USAGE)


def export(
    project: Annotated[
        str,
        typer.Option("--project", help="Only this project, by id or name.", autocompletion=complete_projects),
    ] = "",
    manager: Annotated[
        str, typer.Option(help="The manager to write for instances that have none.")
    ] = UNMANAGED,
    definitions: Annotated[
        Definitions,
        typer.Option(help="Which definition versions: used (without the built-in ones), all, or none."),
    ] = Definitions.USED,
) -> None:
    """Write what exists as a file for `optaic apply`. Applying the unchanged file changes nothing."""

    async def command(client: AsyncClient) -> None:
        names = None
        if project:
            found = await (
                client.projects.get(project) if is_id(project) else client.projects.get(name=project)
            )
            names = {found.name}
        existing = await read_existing(client, names, () if definitions is Definitions.NONE else None)
        for text in unsaid(existing):
            warn(text)
        documents = export_documents(existing, manager=manager, definitions=definitions)
        yaml_text.write(documents, sys.stdout)

    run(command)


class _Plan(NamedTuple):
    """The planned actions, and the documents from which they follow."""

    found: yaml_text.Documents
    actions: list[Action]
    existing: Existing

    @property
    def final(self) -> list[Action]:
        """Return the planned actions that cannot be undone."""
        return [each for each in self.actions if each.verb in {Verb.DELETE, Verb.RETIRE}]


async def _make(client: AsyncClient, file: Path, *, adopt: bool, prune: bool) -> _Plan:
    """Make the plan that brings everything to the state of the file."""
    found = read_yaml(file)
    with placing(found):
        documents = read_documents(found.values)
        existing = await read_existing(client, projects_of(documents), definitions_of(documents))
        return _Plan(found, make_plan(documents, existing, adopt=adopt, prune=prune), existing)


async def _carry_out(client: AsyncClient, plan: _Plan, output: Format, *, dry_run: bool) -> None:
    """Execute a plan, or with `dry_run` check it; show the result."""
    with placing(plan.found):
        await _execute(client, plan.actions, plan.existing, output, dry_run=dry_run)
    if output is Format.TABLE and not plan.actions:
        print_line("nothing to do")


async def _execute(
    client: AsyncClient, actions: list[Action], existing: Existing, output: Format, *, dry_run: bool
) -> None:
    """Execute a plan, and show each step when it is done."""
    shown = []
    moved: list[FlowRef] = []
    try:
        async for done in execute(client, actions, existing, dry_run=dry_run):
            for text in done.warnings:
                warn(f"{done.action.name}: {text}")
            moved += done.moved_flows
            shown.append({**_plain(done.action), "checked": done.is_checked, "warnings": list(done.warnings)})
            if output is Format.TABLE:
                note = (
                    ""
                    if done.is_checked
                    else "not checked" + ("" if done.warnings else ": something it depends on is refused")
                )
                _show(done.action, note)
    finally:  # also where one is refused: what was done before it stays
        if is_data(output):
            print_data(shown, output)
    if moved and output is Format.TABLE:
        await show_impact(client, moved)


def _show(action: Action, note: str) -> None:
    print_line(f"{action.verb:<10}", f"{action.kind:<10}", action.name, *([note] if note else []))
    for each in action.changes:
        print_line(
            f"    {each.path}:",
            " -> ".join(_value(redact_field(each.path, value)) for value in (each.before, each.after)),
        )


def _plain(action: Action) -> dict[str, Any]:
    return {
        "verb": str(action.verb),
        "kind": action.kind,
        "project": action.project,
        "name": action.name,
        "path": action.path,
        "changes": [
            {
                "path": each.path,
                "before": redact_field(each.path, each.before),
                "after": redact_field(each.path, each.after),
            }
            for each in action.changes
        ],
    }


def _value(value: Any) -> str:
    return "(not set)" if value is None else json.dumps(value, default=str)
