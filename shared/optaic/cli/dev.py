"""`optaic dev`: the stack on this machine."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer

from optaic.cli.exits import Exit
from optaic.cli.output import (
    Format,
    OutputOption,
    is_data,
    print_data,
    print_table,
)
from optaic.cli.session import fail

app = typer.Typer(no_args_is_help=True)
_SHOWN = (
    "gateway",
    "instance",
    "run",
    "lineage",
    "status",
    "prefect_ui",
    "mlflow",
    "evidently_workspace",
    "nats_subscriber",
    "data_root",
)


def _devstack(action: Callable[[Any], Any]) -> Any:
    """Execute an action on the stack, and print its error."""
    try:
        import devstack  # noqa: PLC0415 - an extra that only these commands need
        from devstack.ports import PortTakenError  # noqa: PLC0415 - the same
    except ImportError:
        return fail("the stack is not installed; run: pip install 'optaic[service,worker,devstack,gateway]'")
    try:
        return action(devstack)
    except (devstack.StartError, devstack.StackInUseError, devstack.NoStackError, PortTakenError) as error:
        return fail(str(error))


@app.command()
def up(output: OutputOption = Format.TABLE) -> None:
    """Start the stack in the background and print every address."""

    def start(devstack: Any) -> None:
        settings = devstack.Settings()
        endpoints = devstack.up(settings)
        if is_data(output):
            values = asdict(endpoints)
            print_data({name: values[name] for name in _SHOWN}, output)
        else:
            typer.echo(devstack.describe(endpoints, devstack.State(settings.root)))

    _devstack(start)


@app.command()
def down(output: OutputOption = Format.TABLE) -> None:
    """Stop the stack; the data stays."""
    was_running = bool(_devstack(lambda devstack: devstack.down(devstack.Settings())))
    if is_data(output):
        print_data({"was_running": was_running}, output)
    else:
        typer.echo("stopped" if was_running else "nothing was running")


@app.command()
def status(output: OutputOption = Format.TABLE) -> None:
    """Show which programs run and answer; the exit status is 7 unless all do."""
    report = _devstack(lambda devstack: devstack.status(devstack.Settings()))
    if is_data(output):
        print_data(report, output)
    elif report["phase"] == "stopped":
        typer.echo(f"the stack is not running; `optaic dev up` starts it. Its data is in {report['state']}")
    else:
        typer.echo(f"{report['phase']}  {report['state']}")
        rows = [
            (name, str(each["pid"] or "-"), "yes" if each["answers"] else "no", str(each["log"]))
            for name, each in report["processes"].items()
        ]
        print_table(("PROCESS", "PID", "ANSWERS", "LOG"), rows)
    if report["phase"] != "ready":
        raise typer.Exit(Exit.UNAVAILABLE)


@app.command()
def logins(output: OutputOption = Format.TABLE) -> None:
    """Print the users and passwords of the stack's own Prefect and MLflow."""

    def show(devstack: Any) -> None:
        endpoints = devstack.Endpoints.require(devstack.State(devstack.Settings().root))
        if is_data(output):
            print_data({"prefect": endpoints.prefect_login, "mlflow": endpoints.mlflow_login}, output)
        else:
            typer.echo(devstack.describe_logins(endpoints))

    _devstack(show)


@app.command()
def certs(
    folder: Path,
    host: Annotated[
        list[str] | None,
        typer.Option(
            help="Name or address of a machine for which they are valid, besides this one; may be repeated."
        ),
    ] = None,
    output: OutputOption = Format.TABLE,
) -> None:
    """Write a CA for development and certificates for services, workers, NATS, its subscribers and a client into FOLDER."""

    def write(devstack: Any) -> None:
        from devstack.certificates import write_development_certificates  # noqa: PLC0415 - only this command needs it

        try:
            written = write_development_certificates(folder, devstack.Settings().tenants, host or ())
        except OSError as error:
            fail(f"{folder} cannot be written: {error}")
        if is_data(output):
            print_data({"files": [str(path) for path in written]}, output)
        else:
            typer.echo("\n".join(map(str, written)))

    _devstack(write)
