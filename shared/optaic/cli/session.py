"""Connect a command to the services, and print its errors with an exit status."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Annotated, NoReturn, TypeVar

import typer

from optaic.cli.completion import complete_instances, complete_projects, complete_runs
from optaic.cli.exits import Exit, exit_of
from optaic.cli.output import print_message
from optaic.client import AsyncClient
from optaic.client.silence import notify_while_waiting
from optaic.errors import DeadlineExceededError, OptaicError, UnavailableError

InstanceArgument = Annotated[
    str,
    typer.Argument(help="Id or name of the instance.", show_default=False, autocompletion=complete_instances),
]
RunArgument = Annotated[
    str, typer.Argument(help="Id of the run.", show_default=False, autocompletion=complete_runs)
]
ProjectOption = Annotated[
    str, typer.Option("--project", help="Id or name of the project.", autocompletion=complete_projects)
]
FileOption = Annotated[
    Path, typer.Option("--file", "-f", exists=True, dir_okay=False, help="YAML or JSON.", show_default=False)
]
FlowOption = Annotated[
    str,
    typer.Option("--flow", help="Flow kind, for example refresh or training; by default the default flow."),
]
DryRunOption = Annotated[bool, typer.Option("--dry-run", help="Check everything and change nothing.")]
EtagOption = Annotated[
    str, typer.Option("--etag", help="Refuse if the instance has changed since this etag.")
]
ReasonOption = Annotated[str, typer.Option("--reason", help="The reason; recorded with the change.")]
YesOption = Annotated[bool, typer.Option("--yes", "-y", help="Do not ask for confirmation.")]
WatchOption = Annotated[
    bool,
    typer.Option("--watch", "-w", help="Then print each change as a line, or as a JSON object."),
]
_PAUSE = 1.0  # seconds until a service that is away is asked again
_Found = TypeVar("_Found")
_T = TypeVar("_T")


def run(command: Callable[[AsyncClient], Awaitable[_T]], *, failed: Exit | None = None) -> _T:
    """Run a command with a client; a refusal is printed and ends with its own exit status, or with `failed`."""

    async def connected() -> _T:
        async with AsyncClient.connect(notice=_give_notice) as client:
            return await command(client)

    try:
        return asyncio.run(connected())
    except OptaicError as error:
        fail(str(error), status=failed or exit_of(error))
    except TimeoutError as error:
        fail(str(error) or "the command timed out; try it again", status=failed or Exit.TIMEOUT)
    except (ValueError, TypeError) as error:
        fail(str(error), status=Exit.USAGE)
    except KeyboardInterrupt:
        raise typer.Exit(Exit.INTERRUPTED) from None


async def when_it_answers(look: Callable[[], Awaitable[_Found]]) -> _Found:
    """Repeat a look-up until the service answers; tell the user that the command waits."""
    async with notify_while_waiting(_give_notice):
        while True:
            try:
                return await look()
            except (UnavailableError, DeadlineExceededError) as error:
                if error.reason == "NO_ADDRESS":
                    raise
            await asyncio.sleep(_PAUSE)


def _give_notice(message: str) -> None:
    print_message(message, "yellow")


def warn(message: str) -> None:
    """Print a warning: no error, but worth knowing."""
    print_message(f"warning: {_redacted(message)}", "yellow")


def fail(message: str, *, status: Exit = Exit.ERROR) -> NoReturn:
    """Print an error and end the process.

    Raises:
        typer.Exit: Always.
    """
    print_message(f"error: {_redacted(message)}", "red")
    raise typer.Exit(status)


def _redacted(message: str) -> str:
    from redaction import redact  # noqa: PLC0415 - it compiles its patterns, and most commands say nothing is wrong

    return redact(message)


def confirm(question: str) -> None:
    """Ask on the terminal; whatever is not yes ends the command, and nothing is changed.

    Raises:
        typer.Exit: The answer is no, or there is no terminal to ask on.
    """
    # Where its standard input is closed, Python has none.
    if sys.stdin is None or not sys.stdin.isatty():
        text = "this cannot be undone, and there is no terminal on which to ask; pass --yes to confirm"
        fail(f"CONFIRMATION_REQUIRED: {text}", status=Exit.USAGE)
    if not typer.confirm(question, default=False, err=True):
        typer.secho("nothing was changed", err=True)
        raise typer.Exit(Exit.ERROR)


def end_dry_run(*, dry_run: bool) -> None:
    """Print, at the end of a dry run, that nothing was changed; print nothing after any other command."""
    if dry_run:
        typer.secho("dry run: nothing was changed", err=True)
