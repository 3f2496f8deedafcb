"""A reader of tables that never answers, in place of the gateway's own."""

from __future__ import annotations

import os
import signal
from pathlib import Path

if __name__ == "__main__":
    if file := os.environ.get("HANGING_READER_FILE"):
        Path(file).write_text(str(os.getpid()), "utf-8")
    signal.pause()
