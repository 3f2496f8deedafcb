"""Install packages with plugins, as other teams do, into a folder of their own; nothing is downloaded."""

import subprocess
import sys
from pathlib import Path

EXAMPLE = Path(__file__).parent / "acme_research_package"
UPGRADE = Path(__file__).parent / "upgrade_package"


def install_package(source: Path, target: Path) -> Path:
    """Install a package; return the folder for PYTHONPATH."""
    options = ["--quiet", "--offline", "--no-deps", "--no-build-isolation", "--python", sys.executable]
    command = [sys.executable, "-m", "uv", "pip", "install", *options, "--target", str(target), str(source)]
    subprocess.run(command, check=True, timeout=120)
    return target
