"""Show what a deletion would delete, and ask for confirmation."""

from __future__ import annotations

import typer

from optaic.cli.output import Format, is_data, print_data, print_line, print_table
from optaic.cli.session import confirm
from optaic.client import word
from optaic.instance.v1 import instance_service_pb2 as api


def show_preview(preview: api.PreviewDeletionResponse, output: Format) -> None:
    """Print what would go, in the order in which it goes."""
    if is_data(output):
        print_data(list(preview.instances), output)
    elif preview.instances:
        _print_table(preview, err=False)
    else:
        print_line("no instance would be deleted")


def ask(preview: api.PreviewDeletionResponse, what: str) -> None:
    """Show what would go, and go on only if that is wanted.

    Raises:
        typer.Exit: It is not.
    """
    if preview.instances:
        typer.secho("This would be deleted, in this order:", err=True)
        _print_table(preview, err=True)
    confirm(f"Delete {what}?")


def count(number: int) -> str:
    """Return a number of instances in words."""
    return f"{number} instance{'' if number == 1 else 's'}"


def _print_table(preview: api.PreviewDeletionResponse, *, err: bool) -> None:
    print_table(
        ("NAME", "KIND", "PROJECT", "STATE", "ID"),
        [
            (
                each.name,
                word(each, "kind").lower(),
                each.project_name,
                word(each, "state"),
                each.instance_id,
            )
            for each in preview.instances
        ],
        err=err,
    )
