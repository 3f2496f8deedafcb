"""The processes that a program has started, directly or not."""

from pathlib import Path


def list_descendants(pid: int) -> list[tuple[int, int]]:
    """Return (generation, pid) of what a process has started, the children's generation being 1; the deepest last."""
    parents: dict[int, int] = {}
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = path.read_text(encoding="utf-8", errors="replace").rsplit(")", 1)[1].split()
        except (FileNotFoundError, ProcessLookupError):
            continue
        if fields[0] != "Z":
            parents[int(path.parent.name)] = int(fields[1])
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
