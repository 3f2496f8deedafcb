"""`optaic open`: the pages of the console."""

from __future__ import annotations

import os
import sys
import webbrowser
from typing import Annotated

import typer

from optaic.cli.completion import complete_instances, complete_runs
from optaic.cli.exits import Exit
from optaic.cli.naming import find_instance
from optaic.cli.output import print_line
from optaic.cli.session import ProjectOption, fail, run, warn
from optaic.client import AsyncClient
from optaic.client.discovery import find_addresses, find_gateway

_NO_GATEWAY = "the address of the gateway is not known; set OPTAIC_GATEWAY_URL, or start a stack here with `optaic dev up`"


def open_page(
    instance: Annotated[
        str,
        typer.Argument(
            help="Id or name of an instance; by default the first page.",
            show_default=False,
            autocompletion=complete_instances,
        ),
    ] = "",
    run_id: Annotated[
        str, typer.Option("--run", help="The page of this run.", autocompletion=complete_runs)
    ] = "",
    only_print: Annotated[
        bool, typer.Option("--print", help="Print the address; open no browser. So it is without a display.")
    ] = False,
    project: ProjectOption = "",
) -> None:
    """Print the address of a page of the console, and open it in the browser."""
    if instance and run_id:
        raise typer.BadParameter("give an instance or --run, not both")
    if project and not instance:
        raise typer.BadParameter("needs an instance", param_hint="--project")

    async def find(client: AsyncClient) -> str:
        if instance:
            return f"instances/{(await find_instance(client, instance, project)).instance_id}"
        return f"runs/{(await client.runs.get(run_id)).run_id}"

    page = run(find) if instance or run_id else ""
    gateway = find_gateway(find_addresses({})).rstrip("/")
    if not gateway:
        fail(f"NO_ADDRESS: {_NO_GATEWAY}", status=Exit.UNAVAILABLE)
    url = f"{gateway}/console/{page}"
    print_line(url)
    if not only_print and _has_display() and not webbrowser.open(url):
        warn("no browser could be started; open the address yourself")


def _has_display() -> bool:
    """Return whether somebody sits at a terminal of a machine on which a browser has a place to appear."""
    if not sys.stdout.isatty():
        return False
    return sys.platform in {"darwin", "win32"} or any(map(os.environ.get, ("DISPLAY", "WAYLAND_DISPLAY")))
