"""Pipelines that end their process, hold it, fill its output, or leave processes behind; imported by `code_ref`."""

from __future__ import annotations

import base64
import ctypes
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from urllib.parse import quote

import polars as pl

from optaic.plugins import Pipeline, PipelineContext, Secrets

_kept: list[object] = []
_PR_SET_PDEATHSIG = 1


def _hold_the_interpreter(_: PipelineContext) -> None:
    ctypes.PyDLL(None).sleep(600)  # no other thread of this process runs meanwhile


def _print_past_the_guardian(_: PipelineContext) -> None:
    """Do what a process may do for a moment before it is killed with its guardian."""
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, 0)
    os.kill(os.getppid(), signal.SIGKILL)
    while True:
        os.write(1, b"more\n")  # until nobody reads it


def _leave_a_helper(_: PipelineContext) -> None:
    """Start a child that ends with its parent, like multiprocessing's resource tracker."""
    _kept.append(subprocess.Popen(["cat"], stdin=subprocess.PIPE))  # noqa: S607 - a known command


def _close_everything(context: PipelineContext) -> None:
    os.closerange(3, 1000)  # as programs do that become daemons
    _hold_the_interpreter(context)


def _read_nowhere(_: PipelineContext) -> None:
    ctypes.string_at(0)


def _ask_for_too_much(_: PipelineContext) -> None:
    raise MemoryError


def _report_much(context: PipelineContext) -> None:
    context.report("much", "x" * 20_000_000)


def _print_much(context: PipelineContext) -> None:
    for number in range(int(float(str(context.config["lines"])))):
        os.write(1, f"{number:099}\n".encode())  # as native code does


def _print_and_hold(context: PipelineContext) -> None:
    _print_much(context)
    _hold_the_interpreter(context)


def _leave_daemons(context: PipelineContext) -> None:
    """Start a child, one in its own session, and one whose parent has ended."""
    folder = Path(str(context.config.get("folder") or tempfile.gettempdir()))
    seconds = context.config.get("seconds", "600")
    command = f"echo $$ > {{}}; exec sleep {seconds}"
    for name in ("other", "session"):
        place = folder / f"{name}.pid"
        subprocess.Popen(["sh", "-c", command.format(place)], start_new_session=name == "session")  # noqa: S607 - a known command
    if not os.fork():
        os.setsid()
        if not os.fork():
            os.execvp("sh", ["sh", "-c", command.format(folder / "daemon.pid")])  # noqa: S606, S607 - the same
        os._exit(0)
    while not all((folder / f"{name}.pid").exists() for name in ("other", "session", "daemon")):
        time.sleep(0.01)
    sys.stdout.write("daemons are there\n")
    how = str(context.config.get("then", "return"))
    if how != "return":
        HOWS[how](context)


def _tell_secrets(context: PipelineContext) -> None:
    """By every way out that user code has; last as it is told to end."""
    secret = Secrets().fill(str(context.config["login"]), "login")
    url = f"postgresql://reader:{secret}@db.example/prices"
    context.progress(0.5, f"reading {url}")
    context.report("source", url)
    context.report("answer", {"login": [secret]})
    os.write(1, f"half of it: {secret[:5]}".encode())
    time.sleep(0.05)
    os.write(1, f"{secret[5:]}\n{url}\nlast: {secret}".encode())
    then = str(context.config["then"])
    if then == "raise":
        raise ValueError(f"cannot connect to {url}: password={secret}")
    if then != "return":
        HOWS[then](context)


def _tell_encoded_secrets(context: PipelineContext) -> None:
    secret = Secrets().fill(str(context.config["login"]), "login")
    data = secret.encode()
    forms = [
        secret.swapcase(), secret.upper(), secret.lower(), secret[::-1], data.hex(), quote(secret, safe=""),
        base64.b64encode(data).decode(), base64.urlsafe_b64encode(data).decode(),
    ]  # fmt: skip
    context.report("forms", forms)
    for form in forms:
        context.progress(0.5, f"it is {form}")
        os.write(1, f"it is {form}\n".encode())
    if context.config["then"] == "raise":
        raise ValueError(f"it is one of {forms}")


def _find_secrets(context: PipelineContext) -> None:
    if found := [name for name in os.environ if name.startswith("OPTAIC_SECRET_")]:
        raise ValueError(f"there are {found}")
    Secrets().fill(str(context.config["login"]), "login")


HOWS: Mapping[str, Callable[[PipelineContext], None]] = {
    "exit 0": lambda _: os._exit(0),
    "exit 7": lambda _: os._exit(7),
    "SIGKILL": lambda _: os.kill(os.getpid(), signal.SIGKILL),
    "SIGTERM": lambda _: os.kill(os.getpid(), signal.SIGTERM),
    "SIGSEGV": _read_nowhere,
    "SIGABRT": lambda _: os.abort(),
    "kill the guardian": lambda _: os.kill(os.getppid(), signal.SIGKILL),
    "print past the guardian": _print_past_the_guardian,
    "helper": _leave_a_helper,
    "close everything": _close_everything,
    "hold": _hold_the_interpreter,
    "memory": _ask_for_too_much,
    "print": _print_much,
    "print and hold": _print_and_hold,
    "report much": _report_much,
    "daemons": _leave_daemons,
    "tell secrets": _tell_secrets,
    "tell encoded secrets": _tell_encoded_secrets,
    "find secrets": _find_secrets,
}


class Dying(Pipeline):
    """Does `how`; leaves a file `pid` in `folder` first."""

    def run(self, context: PipelineContext) -> pl.DataFrame:
        """Return one row, where it does return."""
        if folder := context.config.get("folder"):
            draft = Path(str(folder)) / "draft"
            draft.write_text(f"{os.getpid()}\n", encoding="ascii")
            draft.rename(Path(str(folder)) / "child.pid")
        sys.stdout.write("".join(f"line {number}\n" for number in range(1, 31)))
        HOWS[str(context.config["how"])](context)
        return pl.DataFrame({"date": [pl.Series(["2020-01-01"]).str.to_date()[0]], "entity": ["A"]})
