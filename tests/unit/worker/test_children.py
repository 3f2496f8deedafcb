"""Children of the warm forkserver."""

from __future__ import annotations

import json
import os
import platform
import subprocess
import sys
from pathlib import Path

_PROGRAM = """
import asyncio, json, os
from worker.config import Settings
settings = Settings(instance_address="127.0.0.1:1", run_address="127.0.0.1:1", data_root="unused",
                    executor_token="unused")
os.environ.update(settings.environment)
from worker.preload import PRELOAD
from worker.children import Forkserver

def count_sockets(folder):
    return sum("socket:" in os.readlink(f"{folder}/{fd}") for fd in os.listdir(folder))

async def main():
    forkserver = Forkserver(PRELOAD)
    await forkserver.start()
    status = open(f"/proc/{forkserver.pid}/maps").read()
    memory = open(f"/proc/{forkserver.pid}/smaps_rollup").read()
    print(json.dumps({
        "threads": [open(f"/proc/{forkserver.pid}/task/{task}/comm").read().strip()
                    for task in os.listdir(f"/proc/{forkserver.pid}/task")],
        "loaded": [name for name in ("cygrpc", "polars", "deltalake", "sklearn") if name in status],
        "large": int(memory.partition("AnonHugePages:")[2].split()[0]),
        "sockets": count_sockets(f"/proc/{forkserver.pid}/fd"),
    }))
    await forkserver.stop()

if __name__ == "__main__":
    asyncio.run(main())
"""

_LARGE_PAGES = Path("/sys/kernel/mm/transparent_hugepage/enabled")
_HAS_LARGE_PAGES = _LARGE_PAGES.exists() and tuple(map(int, platform.release().split(".")[:2])) >= (6, 1)


def test_the_forkserver_has_the_libraries_loaded_and_no_connection(tmp_path: Path) -> None:
    program = tmp_path / "program.py"
    program.write_text(_PROGRAM, encoding="utf-8")
    environment = {**os.environ, "PREFECT_HOME": str(tmp_path)}
    output = subprocess.run(
        [sys.executable, str(program)], env=environment, capture_output=True, check=True, timeout=120
    ).stdout
    found = json.loads(output.splitlines()[-1])
    assert sorted(found["threads"]) == ["polars-ooc-clea", "python"]
    assert set(found["loaded"]) == {"polars", "deltalake", "sklearn"}, "gRPC is the parent's alone"
    if _HAS_LARGE_PAGES:
        assert found["large"] > 32 * 1024, "kB, so that forks are quick"
    assert found["sockets"] == 1, "only the one that it takes orders from"


_ENDS = """
import asyncio, os, signal, sys, time
from worker.children import Forkserver

def leave(code):
    os._exit(code)

async def main():
    forkserver = Forkserver([])
    await forkserver.start()
    codes = [await (await forkserver.run(leave, code)).wait() for code in (0, 7)]
    child = await forkserver.run(time.sleep, 60)
    child.send(signal.SIGKILL)
    codes.append(await child.wait())
    hanging = await forkserver.run(time.sleep, 60)
    await forkserver.stop()
    codes.append((await asyncio.wait_for(hanging.wait(), 5)) != 0)
    again = await forkserver.run(leave, 9)
    codes.append(await again.wait())
    await forkserver.stop()
    print(codes)

if __name__ == "__main__":
    asyncio.run(main())
"""


def test_exit_codes_arrive_and_children_die_with_their_forkserver(tmp_path: Path) -> None:
    program = tmp_path / "program.py"
    program.write_text(_ENDS, encoding="utf-8")
    # A child that outlived its forkserver would keep the output open for a minute.
    output = subprocess.run(
        [sys.executable, str(program)], capture_output=True, check=True, timeout=30, text=True
    ).stdout
    assert output.strip() == "[0, 7, -9, True, 9]"
