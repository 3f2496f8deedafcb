"""Print tables for readers and JSON for programs; knows no resource."""

from __future__ import annotations

import csv
import json
import sys
from collections.abc import Iterable, Mapping, Sequence
from enum import StrEnum
from typing import Annotated, Any

import typer
from google.protobuf import json_format
from google.protobuf.message import Message

from optaic.cli.visible import visible
from optaic.lineage.v1 import lineage_pb2
from optaic.run.v1 import run_pb2


class Format(StrEnum):
    """Output format."""

    TABLE = "table"
    JSON = "json"
    YAML = "yaml"


class ListFormat(StrEnum):
    """Output format of a list."""

    TABLE = "table"
    WIDE = "wide"
    JSON = "json"
    YAML = "yaml"
    NAME = "name"
    CSV = "csv"


AnyFormat = Format | ListFormat
OutputOption = Annotated[Format, typer.Option("--output", "-o", help="Output format.")]
ListOutputOption = Annotated[
    ListFormat,
    typer.Option(
        "--output",
        "-o",
        help="Output format: `wide` and `csv` have all columns, `name` one name a line for other commands.",
    ),
]


class Wide(str):
    """The title of a column that only `wide` and `csv` have."""

    __slots__ = ()


def is_data(output: AnyFormat) -> bool:
    """Return whether the output is for programs: messages as they are, not a table."""
    return output.value in {Format.JSON, Format.YAML}


def shown_cell(text: str) -> str:
    """Return a text for a program as it is, and for a terminal without signs that it would obey."""
    return visible(text) if sys.stdout.isatty() else text


def shown_name(text: str) -> str:
    """Return a name on one line."""
    return visible(text).replace("\n", "\\n")


def print_message(text: str, colour: str = "") -> None:
    """Write a message for the reader to standard error, in a colour where the terminal has any."""
    from optaic.cli import drawing  # noqa: PLC0415 - it is slow to load, and who wants JSON needs none

    drawing.print_message(text, colour)


def print_line(*parts: str) -> None:
    """Write one line, whole however long; its parts apart by two spaces."""
    from optaic.cli import drawing  # noqa: PLC0415 - the same

    drawing.print_line(parts)


def moment(message: Message, field: str) -> str:
    """Return a timestamp in UTC, to the second; empty where there is none."""
    if not message.HasField(field):
        return ""
    return f"{getattr(message, field).ToDatetime().replace(microsecond=0).isoformat(sep=' ')}Z"


def accepted_text(accepted: lineage_pb2.AcceptedStaleness) -> str:
    """Return who declared an output right, and why, as one line."""
    return f"accepted by {accepted.actor}: {accepted.reason}"


def failure_text(failure: lineage_pb2.FlowFailure | run_pb2.RunError) -> str:
    """Return why something failed as one text; empty if it did not."""
    return f"{failure.type}: {failure.message}" if failure.message else failure.type


def print_data(value: Message | Mapping[str, Any] | Sequence[Any], output: AnyFormat) -> None:
    """Write JSON or YAML, with the field names of the contracts."""
    plain = _plain(value)
    if output.value == Format.YAML:
        from optaic.apply import yaml_text  # noqa: PLC0415 - it is slow to import, and most commands need none

        yaml_text.write([plain], sys.stdout)
    else:
        sys.stdout.write(json.dumps(plain, indent=2) + "\n")
    sys.stdout.flush()


def print_next(message: Message, output: AnyFormat) -> None:
    """Write one message of a stream: a line of JSON, or a document of YAML."""
    if output.value == Format.YAML:
        sys.stdout.write("---\n")
        print_data(message, output)
        return
    sys.stdout.write(json.dumps(_plain(message)) + "\n")
    sys.stdout.flush()


def print_list(
    found: Sequence[Any] | Mapping[str, Any],
    columns: Sequence[str],
    rows: Iterable[Sequence[str]],
    output: AnyFormat,
    *,
    name: str = "",
) -> None:
    """Write what was found: as it is, or its rows as a table or as CSV, or its names.

    The names stand in the column `name`, or in the first column if none is given.
    """
    if is_data(output):
        print_data(found, output)
    elif output.value == ListFormat.NAME:
        at = columns.index(name) if name else 0
        for row in rows:
            sys.stdout.write(f"{shown_name(row[at])}\n")
    elif output.value == ListFormat.CSV:
        writer = csv.writer(sys.stdout, lineterminator="\n")
        writer.writerow([title.lower().replace(" ", "_") for title in columns])
        writer.writerows([shown_cell(cell) for cell in row] for row in rows)
    else:
        is_wide = output.value == ListFormat.WIDE
        shown = [at for at, title in enumerate(columns) if is_wide or not isinstance(title, Wide)]
        print_table([columns[at] for at in shown], ([row[at] for at in shown] for row in rows))
    sys.stdout.flush()


def print_table(columns: Sequence[str], rows: Iterable[Sequence[str]], *, err: bool = False) -> None:
    """Write a table; on standard error where it belongs to a question."""
    from optaic.cli import drawing  # noqa: PLC0415 - the same

    drawing.print_table(columns, rows, err=err)


def message_dict(message: Message) -> dict[str, Any]:
    """Return a message as JSON has it, with the field names of the contracts."""
    return json_format.MessageToDict(message, preserving_proto_field_name=True)


def _plain(value: Any) -> Any:
    """Return plain values of messages, also of those in a list."""
    if isinstance(value, Message):
        return message_dict(value)
    if isinstance(value, Sequence) and not isinstance(value, str):
        return [_plain(each) for each in value]
    return value
