"""All commands by noun."""

from typing import Annotated

import typer

import optaic
from optaic.cli import (
    admin,
    apply,
    audit,
    code,
    data,
    definitions,
    dev,
    instances,
    lineage,
    projects,
    realtime,
    refreshes,
    runs,
    status,
)

app = typer.Typer(
    name="optaic",
    help="The control plane of quantitative research. The command finds the services by OPTAIC_*_ADDRESS, or else by the "
    "stack that `optaic dev up` started in this folder or a parent folder.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
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


app.add_typer(dev.app, name="dev", help="Start and stop the stack on this machine.")
app.add_typer(definitions.app, name="definition", help="Definitions: reusable, versioned code.")
app.add_typer(code.app, name="code", help="The code on record for each definition version.")
app.add_typer(projects.app, name="project", help="Projects, which contain instances.")
app.add_typer(instances.app, name="instance", help="Instances: configured definitions.")
app.add_typer(runs.app, name="run", help="Runs and their results.")
app.add_typer(refreshes.app, name="refreshes", help="Refreshes under way and ended: show, cancel, resume.")
app.add_typer(data.app, name="data", help="The data that flows produced.")
app.add_typer(status.app, name="status", help="The status of instances.")
app.add_typer(audit.app, name="audit", help="Who did what, and whether the record of it is intact.")
app.add_typer(lineage.app, name="lineage", help="What depends on what, and why something is stale.")
app.add_typer(admin.app, name="admin", help="Who may do what.")
status.app.command("token")(realtime.token)
app.command("refresh")(refreshes.refresh)
app.command("apply")(apply.apply)
app.command("diff")(apply.diff)
app.command("export")(apply.export)
