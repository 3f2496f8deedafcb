"""All commands by noun."""

import typer

from optaic.cli import apply, code, definitions, dev, instances, lineage, projects, runs, status

app = typer.Typer(
    name="optaic",
    help="The control plane of quantitative research. Addresses come from OPTAIC_*_ADDRESS, else from the stack "
    "that `optaic dev up` started in this folder or one above.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)
app.add_typer(dev.app, name="dev", help="The stack on this machine.")
app.add_typer(definitions.app, name="definition", help="Reusable code, versioned.")
app.add_typer(code.app, name="code", help="What the code of definition versions is.")
app.add_typer(projects.app, name="project", help="What instances belong to.")
app.add_typer(instances.app, name="instance", help="What is configured.")
app.add_typer(runs.app, name="run", help="What runs and what came out.")
app.add_typer(status.app, name="status", help="What state instances are in.")
app.add_typer(lineage.app, name="lineage", help="What depends on what.")
app.command("apply")(apply.apply)
app.command("diff")(apply.diff)
app.command("export")(apply.export)
