"""`optaic admin`: who may do what."""

from __future__ import annotations

import typer

from optaic.cli import access, tokens

app = typer.Typer(no_args_is_help=True)
app.add_typer(access.app, name="access", help="Roles of actors, in a project or in the whole tenant.")
app.add_typer(tokens.app, name="token", help="Tokens, in the file that the services read.")
