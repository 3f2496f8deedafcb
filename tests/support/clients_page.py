"""The commands of a page of docs/, and a folder in which those of docs/clients.md run, for a language at a time."""

import os
import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
_SECONDS = 600


def commands_of(heading: str, page: str = "clients.md") -> str:
    """Return the commands that a page gives under a heading, for example a language."""
    text = (ROOT / "docs" / page).read_text(encoding="utf-8")
    section = text.partition(f"\n## {heading}\n")[2].partition("\n## ")[0]
    (block,) = re.findall(r"```sh\n(.*?)```", section, re.DOTALL)
    return str(block)


class Workshop:
    """The folder, with `python` and a `protoc` on its path."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.tools = folder / "tools"
        self.tools.mkdir()
        self.give("python", f'"{sys.executable}"')
        self.give("protoc", f'"{sys.executable}" -m grpc_tools.protoc')

    def give(self, name: str, command: str) -> None:
        """Put a command on the path."""
        program = self.tools / name
        program.write_text(f'#!/bin/sh\nexec {command} "$@"\n', encoding="utf-8")
        program.chmod(0o755)

    def run(self, commands: str, **environment: str) -> str:
        """Run shell commands; return what they printed.

        Raises:
            AssertionError: One of them failed.
        """
        path = os.pathsep.join([str(self.tools), os.environ["PATH"]])
        finished = subprocess.run(
            ["/bin/sh", "-e", "-c", commands],
            cwd=self.folder,
            env={
                **os.environ,
                "OPTAIC": str(ROOT),
                "PATH": path,
                "GOBIN": str(self.tools),
                "GOFLAGS": "-mod=mod",
                **environment,
            },
            capture_output=True,
            text=True,
            timeout=_SECONDS,
            check=False,
        )
        assert finished.returncode == 0, finished.stdout[-4000:] + finished.stderr[-4000:]
        return finished.stdout
