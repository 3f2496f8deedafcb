"""Draw messages, lines and tables with rich; its load is a fifth of what a command costs that prints JSON."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Sequence
from typing import Self

from rich.console import Console, Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from optaic.cli.visible import visible

_PLAIN_WIDTH = 200
_STYLES = {
    "READY": "green",
    "COMPLETED": "green",
    "RUNNING": "cyan",
    "PENDING": "cyan",
    "STALE": "yellow",
    "ERROR": "red",
    "FAILED": "red",
}


def print_message(text: str, colour: str) -> None:
    """Write a message to standard error."""
    _console(err=True).print(Text(visible(text), style=colour), soft_wrap=True)


def print_line(parts: Iterable[str]) -> None:
    """Write one line, whole however long; its parts apart by two spaces."""
    _console().print(_line(parts), soft_wrap=True)


def print_table(columns: Iterable[str], rows: Iterable[Iterable[str]], *, err: bool) -> None:
    """Write a table."""
    table = Table(box=None, pad_edge=False, header_style="bold")
    for column in columns:
        table.add_column(Text(visible(column)), overflow="fold")
    for row in rows:
        table.add_row(*(_text(cell) for cell in row))
    _console(err=err).print(table)


class LiveLines:
    """The lines of a terminal that change in place; elsewhere nothing is written."""

    def __init__(self, is_live: bool) -> None:
        self._live = Live(console=_console(), auto_refresh=False) if is_live else None

    def __enter__(self) -> Self:
        if self._live is not None:
            self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._live is not None:
            self._live.stop()

    def show(self, lines: Iterable[Sequence[str]]) -> None:
        """Write the lines instead of those before; their parts are apart by two spaces."""
        if self._live is not None:
            self._live.update(Group(*map(_line, lines)), refresh=True)


def _console(*, err: bool = False) -> Console:
    """Return a console on the present standard output or error; a pipe gets wide lines instead of folded ones."""
    stream = sys.stderr if err else sys.stdout
    return Console(width=None if stream.isatty() else _PLAIN_WIDTH, highlight=False, stderr=err)


def _text(part: str) -> Text:
    """Return a part in its colour where it is a status word; what people wrote is never read as markup, nor by the terminal."""
    return Text(visible(part), style=_STYLES.get(part, ""))


def _line(parts: Iterable[str]) -> Text:
    return Text("  ").join(map(_text, parts))
