"""Find and end the processes of one stack, including those that no supervisor knows any more.

Every process of a stack carries `OPTAIC_STACK=<state folder>:<name>` in its environment and so do all its descendants,
whatever session they moved to. Run as a script this file is the guard: it sleeps until its supervisor is gone
and then sweeps. It must not import anything of the project, to start at once and to stay small.
"""

import json
import os
import signal
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import psutil

MARK = "OPTAIC_STACK"
RECORDS = "processes.json"
_POLL_SECONDS = 0.05
_CLOCK_SLACK_SECONDS = 2.0


def identify(pid: int) -> float | None:
    """Return the start time of a living process; together with its pid it names it once and for all."""
    try:
        process = psutil.Process(pid)
        if process.status() == psutil.STATUS_ZOMBIE:
            return None
        return float(process.create_time())
    except psutil.NoSuchProcess:
        return None


def is_same(start: float, other: float) -> bool:
    """Return whether two start times of one pid mean one process; clock corrections move them a little."""
    return abs(start - other) < _CLOCK_SLACK_SECONDS


def recorded(state: Path) -> dict[str, tuple[int, float]]:
    """Return the children that a supervisor of this stack last wrote down: name -> (pid, start time)."""
    try:
        records = json.loads((state / RECORDS).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return {name: (int(pid), float(start)) for name, (pid, start) in records.items()}


def find(state: Path, name: str | None = None) -> Iterator[psutil.Process]:
    """Yield living processes of this stack; with `name`, those of one child and whatever it started."""
    known = {pid: start for key, (pid, start) in recorded(state).items() if name in {None, key}}
    prefix = f"{state}:{name or ''}"
    own = os.getpid()
    for process in psutil.process_iter():
        try:
            if process.pid == own or process.status() == psutil.STATUS_ZOMBIE:
                continue
            start = known.get(process.pid)
            if start is not None and is_same(process.create_time(), start):
                yield process
                continue
            mark = process.environ().get(MARK, "")
        except (psutil.Error, OSError):
            continue  # ended meanwhile, or another user's: not ours
        if mark == prefix if name else mark.startswith(prefix):
            yield process


def end(state: Path, name: str | None = None, grace: float = 5.0) -> int:
    """End them: politely, then by SIGKILL after `grace` seconds; answers how many there were."""
    started = time.monotonic()
    asked: set[int] = set()
    while remaining := list(find(state, name)):
        late = time.monotonic() - started > grace
        for process in remaining:
            if process.pid in asked and not late:
                continue
            asked.add(process.pid)
            try:
                # SIGINT is PostgreSQL's fast shutdown; on SIGTERM it would wait for its clients.
                polite = signal.SIGINT if process.name() == "postgres" else signal.SIGTERM
                process.send_signal(signal.SIGKILL if late else polite)
            except (psutil.Error, OSError):
                continue
        time.sleep(_POLL_SECONDS)
    return len(asked)


def guard(state: Path) -> None:
    """Wait for the end of standard input, which the supervisor holds open; a last word means all is well."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    if not sys.stdin.buffer.read():
        end(state)


if __name__ == "__main__":
    guard(Path(sys.argv[1]))
