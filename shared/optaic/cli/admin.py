"""`optaic admin`: who may do what, whether what is stored is right, and where data lies."""

from __future__ import annotations

import typer

from optaic.cli import access, moving, tokens
from optaic.cli.output import Format, OutputOption, is_data, print_data, print_line
from optaic.cli.session import run
from optaic.client import AsyncClient, word

app = typer.Typer(no_args_is_help=True)
app.add_typer(access.app, name="access", help="Roles of actors, in a project or in the whole tenant.")
app.add_typer(tokens.app, name="token", help="Tokens, in the file that the services read.")
app.command("move-data")(moving.move_data)


@app.command()
def recompute(output: OutputOption = Format.TABLE) -> None:
    """Compare the stored freshness of all flows with what follows from the facts, and repair what differs.

    lineage-service does so by itself every few hours. Nothing is expected to differ: report a flow that this command names.
    """

    async def command(client: AsyncClient) -> None:
        compared, repaired = await client.lineage.recompute()
        if is_data(output):
            print_data(repaired, output)
            return
        for flow in repaired:
            print_line(flow.instance_id, word(flow, "flow_kind").lower(), "repaired")
        print_line(f"{compared} flows compared, {len(repaired)} repaired")

    run(command)
