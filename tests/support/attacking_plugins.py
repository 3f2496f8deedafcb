"""A pipeline that tries what it must not do, and reports what came of it; imported by `code_ref`."""

from __future__ import annotations

import ctypes
import datetime as dt
import os
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path

import polars as pl

from optaic.expression import evaluate, threads
from optaic.plugins import Pipeline, PipelineContext

_ATTACH, _DETACH = 16, 17  # PTRACE_ATTACH, PTRACE_DETACH
_NEW_USERS_AND_MOUNTS = 0x10000000 | 0x00020000
_REFUSED = (OSError, ValueError, subprocess.SubprocessError)


def _read(text: str) -> str:
    return f"read {len(Path(text).read_bytes())} bytes"


def _list(text: str) -> str:
    found = sorted(each.name for each in Path(text).iterdir())
    if not found:
        raise OSError("it is empty")
    return f"found {found}"


def _write(text: str) -> str:
    place = Path(text)
    place = place / "written by an attack" if place.is_dir() else place
    with place.open("a", encoding="ascii") as file:
        file.write("x")
    return f"wrote to {place}"


def _look_at(text: str) -> str:
    """Read what /proc says of a process of the machine."""
    for name in ("environ", "mem", "fd", "cmdline"):
        place = f"/proc/{text}/{name}"
        try:
            if name == "fd":
                list(Path(place).iterdir())
            else:
                with Path(place).open("rb") as file:
                    file.read(0 if name == "mem" else 10)
        except OSError:
            continue
        return f"read {place}"
    raise OSError("nothing can be read")


def _signal(text: str) -> str:
    os.kill(int(text), signal.SIGUSR1)
    return f"sent a signal to {text}"


def _trace(text: str) -> str:
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.ptrace(_ATTACH, int(text), None, None):
        raise OSError(ctypes.get_errno(), "ptrace")
    libc.ptrace(_DETACH, int(text), None, None)
    return f"traced {text}"


def _link(text: str) -> str:
    os.link(text, Path(tempfile.gettempdir()) / "hard link")
    return f"linked to {text}"


def _become_root(_: str) -> str:
    os.setuid(0)
    return "became root"


def _uncover(text: str) -> str:
    """Take away what hides a folder, as whoever has the rights in a namespace of users could."""
    pid = os.fork()
    if not pid:
        libc = ctypes.CDLL(None)
        libc.unshare(_NEW_USERS_AND_MOUNTS)
        libc.umount2(os.fsencode(text), 2)
        libc.mount(None, b"/", None, (1 << 5) | (1 << 12), None)  # to be written again
        found = [each for each in ("attacked", "stack.json", "private") if (Path(text) / each).exists()]
        os._exit(len(found))
    if os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0:
        raise OSError("it stays hidden")
    return f"uncovered {text}"


def _set_up_the_kernel(_: str) -> str:
    Path("/proc/sys/kernel/core_pattern").write_text("core", encoding="ascii")
    return "changed the kernel"


def _kill_all(_: str) -> str:
    os.kill(-1, signal.SIGKILL)
    return "all were killed that could be"


def _connect(text: str) -> str:
    with socket.create_connection(("127.0.0.1", int(text)), 5):
        return "connected"


def _leave_a_daemon(text: str) -> str:
    if not os.fork():
        os.setsid()
        if not os.fork():
            while True:  # its mark is a file that it keeps open
                with Path(tempfile.gettempdir(), "daemon").open("w", encoding="ascii"):
                    time.sleep(float(text))
        os._exit(0)
    return "there is a daemon"


def _fork_without_end(_: str) -> str:
    while True:
        try:
            if not os.fork():
                continue
        except BlockingIOError:
            time.sleep(0.01)


def _eat_memory(_: str) -> str:
    held = []
    while True:
        held.append(bytearray(b"\1" * (16 << 20)))


def _spin(_: str) -> str:
    while True:
        pass


def _sleep(text: str) -> str:
    time.sleep(float(text))
    return "slept"


def _compute(_: str) -> str:
    """Compute an expression that is large enough for several threads, and find out whether as many may begin."""
    days = pl.DataFrame({"date": [dt.date(2020, 1, 1) + dt.timedelta(day) for day in range(250)]})
    table = days.join(pl.DataFrame({"entity": range(1_000)}), how="cross").with_row_index("x")
    values = evaluate("EXP(MEAN(x, 5) / 1e6) ^ LOG(x + 1)", table)["value"]
    count = threads.count_threads(len(values))
    barrier = threading.Barrier(count)
    threads.compute_parts(lambda _: barrier.wait(60), range(count), len(values))
    return f"computed {len(values.drop_nulls())} values in {count} threads"


def _fill(_: str) -> str:
    with tempfile.TemporaryFile() as file:
        while True:
            file.write(b"\1" * (1 << 20))


def _tell(text: str) -> str:
    value = {"uid": os.geteuid(), "gid": os.getegid(), "groups": os.getgroups(), "pid": os.getpid()}
    value |= {"home": os.environ.get("HOME"), "tmp": tempfile.gettempdir(), "folder": str(Path.cwd())}
    return str(value.get(text, "?"))


def _trick(text: str) -> str:
    """Put a link where the worker is going to write, and fail."""
    place = Path(text)
    place.parent.mkdir(parents=True, exist_ok=True)
    place.symlink_to("/etc/optaic-attacked")
    raise RuntimeError(f"a link lies at {place}")


ATTACKS: Mapping[str, Callable[[str], str]] = {
    "read": _read, "list": _list, "write": _write, "look at": _look_at, "signal": _signal, "trace": _trace, "link": _link,
    "become root": _become_root, "uncover": _uncover, "set up the kernel": _set_up_the_kernel, "kill all": _kill_all,
    "connect": _connect, "leave a daemon": _leave_a_daemon, "fork": _fork_without_end, "eat memory": _eat_memory,
    "spin": _spin, "sleep": _sleep, "compute": _compute, "fill": _fill, "tell": _tell, "trick": _trick,
}  # fmt: skip


class Attacking(Pipeline):
    """Tries each of `attacks`, a list of `[name, argument]`; reports under the number of each."""

    def run(self, context: PipelineContext) -> pl.DataFrame:
        """Return one row, where it does return."""
        attacks = context.config["attacks"]
        assert isinstance(attacks, list)
        for number, (name, argument) in enumerate(attacks):
            sys.stdout.write(f"tries {name} {argument}\n")
            try:
                came_of_it = ATTACKS[str(name)](str(argument))
            except _REFUSED as error:
                came_of_it = f"refused: {error}"
            context.report(f"attack.{number}", came_of_it)
        return pl.DataFrame({"date": [pl.Series(["2020-01-01"]).str.to_date()[0]], "entity": ["A"]})
