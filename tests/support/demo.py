"""The main job as `make demo` runs it, in a process of its own."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from support.contract import ROOT


def start_demo(folder: Path, **environment: str) -> subprocess.Popen[str]:
    """Start the demo in a folder and a session of its own; its state is in `.state/demo` there, its record in `build/demo`."""
    return subprocess.Popen(
        [sys.executable, "-m", "demo"],
        cwd=folder,
        env={
            **os.environ,
            "PYTHONPATH": str(ROOT),
            "OPTAIC_START_TIMEOUT_SECONDS": "360",
            "OPTAIC_POLL_SECONDS": "2",  # the worker hears of its runs at once
            **environment,
        },
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )
