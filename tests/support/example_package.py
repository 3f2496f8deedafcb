"""Installs the example package as another team's, into a folder of its own; nothing is downloaded."""

import subprocess
import sys
from pathlib import Path

SOURCE = Path(__file__).parent / "acme_research_package"


def install_example_package(target: Path) -> Path:
    """Install it; return the folder for PYTHONPATH."""
    options = ["--quiet", "--offline", "--no-deps", "--no-build-isolation", "--python", sys.executable]
    command = [sys.executable, "-m", "uv", "pip", "install", *options, "--target", str(target), str(SOURCE)]
    subprocess.run(command, check=True, timeout=120)
    return target
