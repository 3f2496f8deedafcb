"""A process of user code finds no credential and no address: not in its own process, and not in any other."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

CANARY = "k4n4rie-Zx81-2026"
GIVEN = {
    "OPTAIC_INSTANCE_ADDRESS": f"{CANARY}.example:1",
    "OPTAIC_RUN_ADDRESS": f"{CANARY}.example:2",
    "OPTAIC_EXECUTOR_TOKEN": f"{CANARY}-executor",
    "OPTAIC_SERVICE_TOKEN": f"{CANARY}-service",
    "OPTAIC_TLS_CA": f"/{CANARY}/ca.pem",
    "OPTAIC_TLS_CERTIFICATE": f"/{CANARY}/worker.pem",
    "OPTAIC_TLS_KEY": f"/{CANARY}/worker.key",
    "OPTAIC_PREFECT_API_URL": f"https://{CANARY}.example/api",
    "OPTAIC_PREFECT_API_KEY": f"{CANARY}-prefect",
    "OPTAIC_PREFECT_AUTH_STRING": f"optaic:{CANARY}-login",
    "OPTAIC_SECRET_WAREHOUSE": f"{CANARY}-warehouse",
    "OPTAIC_MLFLOW_URL": f"https://{CANARY}.example",
    "MLFLOW_TRACKING_URI": f"http://{CANARY}:password@{CANARY}.example",
    "MLFLOW_TRACKING_PASSWORD": f"{CANARY}-mlflow",
    "PREFECT_API_URL": f"http://{CANARY}.example/api",
    "PREFECT_API_AUTH_STRING": f"{CANARY}:auth",
    "AWS_SECRET_ACCESS_KEY": f"{CANARY}-aws",
    "SOME_PASSWORD": f"{CANARY}-other",
}

# A worker: it takes its settings as the program does, and lets a guardian run a child that looks everywhere.
_PROGRAM = """
import asyncio, json, os, sys
from pathlib import Path
from worker import environment, frames
from worker.children import Forkserver

CANARY = "-".join(("k4n4rie", "Zx81", "2026")).encode()

def look(path):
    try:
        return CANARY in Path(path).read_bytes()
    except OSError:
        return False

def look_into_memory(pid):
    try:
        with open(f"/proc/{pid}/maps") as maps, open(f"/proc/{pid}/mem", "rb", 0) as memory:
            for line in maps:
                place, rights = line.split()[:2]
                begin, end = (int(each, 16) for each in place.split("-"))
                if "r" not in rights or "[v" in line or end - begin > 1 << 28:
                    continue
                try:
                    memory.seek(begin)
                    if CANARY in memory.read(end - begin):
                        return True
                except (OSError, ValueError, OverflowError):
                    continue
    except OSError:
        return False
    return False

def search(parent, own, readable):
    found = []
    for pid in {parent, os.getppid(), os.getpid(), *readable}:
        folder = f"/proc/{pid}"
        if look(f"{folder}/environ"):
            found.append(f"environment of {pid}")
        if look(f"{folder}/cmdline"):
            found.append(f"arguments of {pid}")
        if pid != os.getpid() and look_into_memory(pid):  # its own has what it looks for
            found.append(f"memory of {pid}")
        try:
            descriptors = os.listdir(f"{folder}/fd")
        except OSError:
            descriptors = []
        found += [f"descriptor {each} of {pid}" for each in descriptors
                  if os.path.isfile(f"{folder}/fd/{each}") and look(f"{folder}/fd/{each}")]
    return found + [name for name, value in os.environ.items() if CANARY.decode() in value]

def be_child(work):
    parent, others = json.loads(frames.receive(work)[1])
    try:
        with open(f"/proc/{parent}/mem", "rb", 0):
            can = True
    except OSError:
        can = False
    found = {"found": search(parent, os.getpid(), others), "reads_memory_of_parent": can,
             "environment": sorted(os.environ)}
    work.sendall(frames.pack(frames.Kind.RESULT, json.dumps(found).encode()))

def be_guardian(orders, work):
    from worker.guardian import Line, guard
    guard(Line(orders, work), be_child)

async def main():
    settings = environment.take()
    assert "prefect" in settings.prefect_api_key
    from worker.guardian import make_lines
    forkserver = Forkserver(["__main__"])
    await forkserver.start()
    ours, theirs = make_lines()
    await forkserver.run(be_guardian, theirs.orders, theirs.work, is_tied=False)
    theirs.close()
    limits = {"file": f"{sys.argv[1]}/output", "bytes": 1000, "runs": 1}
    ours.orders.sendall(frames.pack(frames.Kind.START, json.dumps(limits).encode()))
    given = json.dumps([os.getpid(), [forkserver.pid, forkserver.tracker_pid]])
    ours.work.sendall(frames.pack(frames.Kind.TASK, given.encode()))
    answer = await asyncio.to_thread(frames.receive, ours.work)
    own = Path("/proc/self/environ").read_bytes() if os.geteuid() == 0 else b""
    print(json.dumps({**json.loads(answer[1]), "own": CANARY in own}))
    await forkserver.stop()

if __name__ == "__main__":
    environment.leave()
    asyncio.run(main())
"""


@pytest.mark.skipif(sys.platform != "linux", reason="it looks into /proc")
def test_a_plugin_finds_no_secret_in_any_process_of_the_worker(tmp_path: Path) -> None:
    program = tmp_path / "program.py"
    program.write_text(_PROGRAM, encoding="utf-8")
    done = subprocess.run(
        [sys.executable, str(program), str(tmp_path)],
        env={**os.environ, **GIVEN, "OPTAIC_DATA_ROOT": str(tmp_path)},
        capture_output=True,
        check=False,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr.decode()
    found = json.loads(done.stdout.splitlines()[-1])
    assert found["found"] == []
    assert not found["own"], "the worker's own environment shows nothing either"
    assert not found["reads_memory_of_parent"]
    assert [
        name for name in found["environment"] if name.startswith(("OPTAIC_", "AWS_", "SOME_", "MLFLOW_"))
    ] == ["MLFLOW_DISABLE_TELEMETRY"]  # a switch, which says nothing
