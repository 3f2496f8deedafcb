"""Whether a process runs, and the processes that a program has started, directly or not."""

from pathlib import Path

_ENDED = {"", "Z"}


def is_running(pid: int) -> bool:
    """Return whether a process exists and is no zombie."""
    return _state_and_parent(pid)[0] not in _ENDED


def list_descendants(pid: int) -> list[tuple[int, int]]:
    """Return (generation, pid) of what a process has started, the children's generation being 1; the deepest last."""
    parents: dict[int, int] = {}
    for path in Path("/proc").glob("[0-9]*"):
        state, parent = _state_and_parent(int(path.name))
        if state not in _ENDED:
            parents[int(path.name)] = parent
    found, generation = [], {pid}
    number = 0
    while generation:
        number += 1
        generation = {one for one, parent in parents.items() if parent in generation}
        found += [(number, one) for one in sorted(generation)]
    return found


def list_run_processes(worker_pid: int) -> list[int]:
    """Return the processes that a worker's runs consist of: what its warm process has forked, the deepest last."""
    return [pid for generation, pid in list_descendants(worker_pid) if generation > 1]


def _state_and_parent(pid: int) -> tuple[str, int]:
    """Return the state of a process and its parent, or nothing of one that does not exist."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
    except (FileNotFoundError, ProcessLookupError):
        return "", 0
    state, parent = text.rsplit(")", 1)[1].split()[:2]
    return state, int(parent)
