"""Write the commands into docs/cli.md, from their help texts: `make client`."""

from __future__ import annotations

from collections.abc import Iterator
from enum import Enum
from pathlib import Path
from typing import Any

import typer

from optaic.cli.app import app

PAGE = Path(__file__).parents[2] / "docs" / "cli.md"
_HEAD = "## Commands\n\n"


def page() -> str:
    """Return the page as it should be: what is written by hand, then each command."""
    written, _, _ = PAGE.read_text(encoding="utf-8").partition(_HEAD)
    return written + _HEAD + "\n".join(_commands(typer.main.get_command(app), ("optaic",)))


def _commands(command: Any, path: tuple[str, ...]) -> Iterator[str]:
    if hasattr(command, "list_commands"):
        for name in sorted(command.list_commands(None)):
            yield from _commands(command.get_command(None, name), (*path, name))
        return
    given = [each for each in command.params if each.param_type_name == "argument"]
    options = [each for each in command.params if each.param_type_name == "option" and each.name != "help"]
    yield f"### `{' '.join([*path, *(_placeholder(each) for each in given)])}`\n"
    yield f"{_line(command.help)}\n"
    for each in given:
        if each.help:
            yield f"- `{_placeholder(each)}`: {_line(each.help)}"
    for each in options:
        names = ", ".join([*reversed(each.opts), *each.secondary_opts])
        yield f"- `{names}`: {_line(each.help or '')}{_choices(each)}".rstrip(": ")
    yield ""


def _placeholder(argument: Any) -> str:
    name = argument.name.upper().rstrip("_") + ("..." if argument.nargs == -1 else "")
    return name if argument.required else f"[{name}]"


def _choices(option: Any) -> str:
    kind = option.type_descriptor.annotation
    if not isinstance(kind, type) or not issubclass(kind, Enum):
        return ""
    return f" One of {', '.join(f'`{each.value}`' for each in kind)}."


def _line(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|").replace("<", "&lt;")


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
