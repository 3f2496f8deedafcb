"""All commands by noun; the module of a noun is loaded when a command of it is called."""

from __future__ import annotations

from functools import cache
from importlib import import_module
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

import optaic

# noun -> module and help text
_NOUNS = {
    "dev": ("dev", "Start and stop the stack on this machine."),
    "definition": ("definitions", "Definitions: reusable, versioned code."),
    "code": ("code", "The code on record for each definition version."),
    "project": ("projects", "Projects, which contain instances."),
    "instance": ("instances", "Instances: configured definitions."),
    "run": ("runs", "Runs and their results."),
    "refreshes": ("refreshes", "Refreshes under way and ended: show, cancel, resume."),
    "data": ("data", "The data that flows produced."),
    "status": ("status", "The status of instances."),
    "audit": ("audit", "Who did what, and whether the record of it is intact."),
    "lineage": ("lineage", "What depends on what, and why something is stale."),
    "admin": ("admin", "Who may do what."),
}
# verb -> module and function
_VERBS = {
    "refresh": "refreshes:refresh",
    "apply": "apply:apply",
    "diff": "apply:diff",
    "export": "apply:export",
    "open": "pages:open_page",
    "doctor": "doctor:doctor",
    "init": "packages:init",
}


class _Nouns(TyperGroup):
    """The commands of all modules, each loaded on its first use: imports are most of what a command costs."""

    def list_commands(self, ctx: Any) -> list[str]:
        """Return the names of all commands."""
        del ctx
        return [*_VERBS, *_NOUNS]

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        """Return a command, or None if there is none of this name."""
        del ctx
        return _command(cmd_name)

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        """Return the command that is called; suggest one where there is none of this name."""
        if args and not args[0].startswith("-") and self.get_command(ctx, args[0]) is None:
            from optaic.client.existence import near  # noqa: PLC0415 - it loads the whole client

            ctx.fail(f"No such command {args[0]!r}{near(args[0], self.list_commands(ctx))}")
        return super().resolve_command(ctx, args)


@cache  # typer asks several times
def _command(name: str) -> Any:
    if name in _NOUNS:
        module, text = _NOUNS[name]
        inner = typer.Typer()
        inner.add_typer(import_module(f"optaic.cli.{module}").app, name=name, help=text)
        inner.callback()(lambda: None)
        group: Any = typer.main.get_command(inner)
        return group.commands[name]
    if name in _VERBS:
        inner = typer.Typer(add_completion=False)
        module, _, function = _VERBS[name].partition(":")
        inner.command(name)(getattr(import_module(f"optaic.cli.{module}"), function))
        return typer.main.get_command(inner)
    return None


app = typer.Typer(
    name="optaic",
    help="The control plane of quantitative research. The command finds the services by OPTAIC_*_ADDRESS, or else by the "
    "stack that `optaic dev up` started in this folder or a parent folder.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    cls=_Nouns,
)


def _show_version(is_asked: bool) -> None:
    if is_asked:
        typer.echo(f"optaic {optaic.__version__}")
        raise typer.Exit


@app.callback()
def main(
    *,
    version: Annotated[
        bool,
        typer.Option("--version", is_eager=True, callback=_show_version, help="Show the version and end."),
    ] = False,
) -> None:
    """Work on definitions, instances, flows and runs."""
    del version
