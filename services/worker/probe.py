"""Try which confinement this machine allows, and print it as JSON; a program of its own, since each try needs one thread."""

from __future__ import annotations

import importlib.util
import json
import os
import sys
import tempfile
from pathlib import Path
from typing import NoReturn

from worker import namespaces, privileges, temporary
from worker.birth import leave
from worker.confinement import Confinement

_ROOT = 0


def main() -> None:
    """Try the best first."""
    wanted, user = sys.argv[1], int(sys.argv[2])
    is_root = os.geteuid() == _ROOT
    candidates = [
        Confinement(user=user if has_user else None, has_namespaces=has_namespaces)
        for has_user, has_namespaces in ((True, True), (True, False), (False, True))
        if (is_root or not has_user)
        and (wanted != "uid" or has_user)
        and (wanted != "namespace" or not has_user)
    ]
    problems: list[str] = [] if is_root or wanted != "uid" else ["only root can use another user"]
    for candidate in candidates:
        if not (problem := _try(candidate)):
            print(json.dumps(_describe(candidate, problems)))  # noqa: T201 - it is what this program says
            return
        problems.append(problem)
    print(json.dumps(_describe(Confinement(), problems)))  # noqa: T201 - the same


def _describe(found: Confinement, problems: list[str]) -> dict[str, object]:
    return {
        "has_user": found.user is not None,
        "has_namespaces": found.has_namespaces,
        "problem": "; ".join(dict.fromkeys(problems)),
    }


def _try(candidate: Confinement) -> str:
    """Return why a child cannot be confined so; empty if it can."""
    told, tell = os.pipe()
    with temporary.folder() as folder:
        pid = os.fork()
        if not pid:
            os.close(told)
            _be_divided(candidate, folder, tell)
        os.close(tell)
        os.waitpid(pid, 0)
        with os.fdopen(told, encoding="utf-8") as reader:
            said = reader.read()
    return "" if said == "ok" else said or "the process that tried it was killed"


def _be_divided(candidate: Confinement, folder: str, tell: int) -> NoReturn:
    def do() -> None:
        try:
            candidate.prepare(folder)
            if candidate.has_namespaces:
                namespaces.divide_processes()
                pid = os.fork()
                if pid:
                    os.waitpid(pid, 0)
                    return
                namespaces.enter(candidate.view(folder))
            _check(candidate, folder)
        except OSError as error:
            os.write(tell, str(error).encode())
        else:
            os.write(tell, b"ok")

    leave(do)


def _check(candidate: Confinement, folder: str) -> None:
    """Do as a child does: become what it becomes, read what is installed, and write what it may.

    Raises:
        OSError: it cannot.
    """
    privileges.drop(candidate.user)
    candidate.set_environment(folder)
    for name in ("os", "json", "worker", "polars", "optaic"):
        if (
            (found := importlib.util.find_spec(name)) is not None
            and found.origin
            and Path(found.origin).is_absolute()
        ):
            Path(found.origin).read_bytes()
    for place in filter(os.path.isdir, sys.path):
        os.listdir(place)  # noqa: PTH208 - nothing else is wanted
    with tempfile.TemporaryFile() as file:
        file.write(b"ok")


if __name__ == "__main__":
    main()
