"""`optaic init`: a package with a definition of one's own, to begin with."""

from __future__ import annotations

import keyword
import re
import sys
from importlib import resources
from pathlib import Path
from typing import Annotated

import typer

from optaic.cli.exits import Exit
from optaic.cli.output import Format, OutputOption, is_data, print_data, print_line, print_message
from optaic.cli.session import fail

_NAME = re.compile(r"[a-z][a-z0-9]*([_-][a-z0-9]+)*")
_LONGEST = 50  # the definition's name has a few characters more
_TAKEN = {*sys.stdlib_module_names, *keyword.kwlist, "optaic", "polars", "pytest", "tests"}
# The name of each template, and the file that it becomes.
_FILES = {
    "pyproject.toml": "pyproject.toml",
    "README.md": "README.md",
    "init.py": "{package}/__init__.py",
    "pipelines.py": "{package}/pipelines.py",
    "walk.json": "{package}/definitions/walk.json",
    "test_walk.py": "tests/test_walk.py",
}


def init(
    folder: Annotated[
        Path, typer.Argument(help="A new or empty folder; the package has its name.", show_default=False)
    ],
    output: OutputOption = Format.TABLE,
) -> None:
    """Write a package with a definition, its code and its tests, which pass."""
    name = folder.resolve().name
    package = name.replace("-", "_")
    if not _NAME.fullmatch(name) or len(name) > _LONGEST or package in _TAKEN:
        raise typer.BadParameter(
            f"the package would be named {name!r}; choose a name of at most {_LONGEST} small letters, digits, - or _ "
            "that no module of Python has, for example acme-research",
            param_hint="FOLDER",
        )
    templates = resources.files("optaic.cli") / "new_package"
    written = [folder / path.format(package=package) for path in _FILES.values()]
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if any(folder.iterdir()):
            fail(f"{folder} has files; choose a new or an empty folder", status=Exit.CONFLICT)
        for template, path in zip(_FILES, written, strict=True):
            text = (templates / f"{template}.txt").read_text(encoding="utf-8")
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text.replace("__NAME__", name).replace("__PACKAGE__", package), encoding="utf-8")
    except OSError as error:
        fail(f"{folder} cannot be written: {error}")
    if is_data(output):
        print_data({"files": [str(path) for path in written]}, output)
        return
    for path in written:
        print_line(str(path))
    print_message(f"next: cd {folder}, pip install -e '.[test]', python -m pytest")
