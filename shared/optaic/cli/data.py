"""`optaic data`: the tables that flows produced."""

from __future__ import annotations

import sys
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from optaic.cli.files import new_file
from optaic.cli.naming import find_instance
from optaic.cli.output import print_message, print_table, shown_cell
from optaic.cli.session import FlowOption, InstanceArgument, ProjectOption, fail, run
from optaic.client import AsyncClient

if TYPE_CHECKING:
    import polars as pl

_FORMATS = (".parquet", ".csv", ".json", ".arrow")
app = typer.Typer(no_args_is_help=True)


class _DataFormat(StrEnum):
    """Format of rows on standard output."""

    TABLE = "table"
    CSV = "csv"
    JSON = "json"


@app.callback()
def data() -> None:
    """Read the data that flows produced."""


@app.command()
def read(
    instance: InstanceArgument,
    version: Annotated[
        str, typer.Option(help="A version's number, or the id of a run; by default the current version.")
    ] = "",
    table: Annotated[
        str, typer.Option("--table", help="Which table of several, for example trades of a backtest.")
    ] = "",
    column: Annotated[list[str] | None, typer.Option(help="Only this column; may be repeated.")] = None,
    entity: Annotated[list[str] | None, typer.Option(help="Only this entity; may be repeated.")] = None,
    start: Annotated[str, typer.Option(help="The first day, for example 2026-01-02.")] = "",
    end: Annotated[str, typer.Option(help="The last day.")] = "",
    limit: Annotated[
        int, typer.Option(min=0, help="Print at most this many rows, the last ones; 0: all. Files have all.")
    ] = 20,
    file: Annotated[
        Path | None,
        typer.Option(
            "--file", "-f", dir_okay=False, help="Write into this file: .parquet, .csv, .json or .arrow."
        ),
    ] = None,
    flow: FlowOption = "",
    project: ProjectOption = "",
    output: Annotated[_DataFormat, typer.Option("--output", "-o", help="Output format.")] = _DataFormat.TABLE,
) -> None:
    """Print or store what a flow produced, as its dependants read it. JSON has null for what is no number."""
    if file is not None and file.suffix not in _FORMATS:
        raise typer.BadParameter(f"must end with one of {', '.join(_FORMATS)}", param_hint="--file")
    if file is not None and not file.absolute().parent.is_dir():
        raise typer.BadParameter(f"there is no folder {file.absolute().parent}", param_hint="--file")

    async def command(client: AsyncClient) -> None:
        found = await find_instance(client, instance, project)
        frame = await client.data.read(
            found,
            int(version) if version.isdecimal() else version or None,
            output=table,
            columns=column,
            entities=entity,
            start=start or None,
            end=end or None,
            flow_kind=flow or None,
        )
        from polars.exceptions import PolarsError  # noqa: PLC0415 - slow to import; here it is loaded already

        try:
            if file is not None:
                with new_file(file) as draft:
                    _write(frame, draft, file.suffix)
                print_message(f"{frame.height} rows, {frame.width} columns in {file}")
            else:
                _print(frame, output, limit)
        except PolarsError as error:  # for example lists, which CSV does not know
            fail(f"the table cannot be written in this format: {error}; choose another one")

    run(command)


def _write(frame: pl.DataFrame, file: Path, suffix: str) -> None:
    match suffix:
        case ".parquet":
            frame.write_parquet(file)
        case ".csv":
            frame.write_csv(file)
        case ".json":
            frame.write_json(file)
        case _:
            frame.write_ipc(file)


def _print(frame: pl.DataFrame, output: _DataFormat, limit: int) -> None:
    shown = frame.tail(limit) if limit else frame
    match output:
        case _DataFormat.CSV:
            sys.stdout.write(shown_cell(shown.write_csv()))
        case _DataFormat.JSON:
            sys.stdout.write(shown_cell(f"{shown.write_json()}\n"))
        case _:
            rows = shown.rows()
            print_table(shown.columns, [["" if each is None else str(each) for each in row] for row in rows])
    sys.stdout.flush()
    if shown.height < frame.height:
        print_message(
            f"the last {shown.height} of {frame.height} rows; --limit 0 prints all, --file stores all"
        )
