"""Install packages with plugins, as other teams do, into a folder of their own; nothing is downloaded."""

import subprocess
import sys
from pathlib import Path

import pytest

from optaic.plugins.registry import GROUP, list_registered_code

REGISTERED = (
    Path(__file__).parent / "registered"
)  # a folder of the path: it registers the plugins of the tests
EXAMPLE = Path(__file__).parent / "acme_research_package"
UPGRADE = Path(__file__).parent / "upgrade_package"


def install_package(source: Path, target: Path) -> Path:
    """Install a package; return the folder for PYTHONPATH."""
    options = ["--quiet", "--offline", "--no-deps", "--no-build-isolation", "--python", sys.executable]
    command = [sys.executable, "-m", "uv", "pip", "install", *options, "--target", str(target), str(source)]
    subprocess.run(command, check=True, timeout=120)
    return target


def register_code(folder: Path, *code_refs: str, name: str = "registered") -> Path:
    """Write the metadata of an installed package that registers code; return the folder for Python's path."""
    metadata = folder / f"{name}-1.0.dist-info"
    metadata.mkdir(parents=True)
    (metadata / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
    lines = [f"e{number} = {code_ref}\n" for number, code_ref in enumerate(code_refs)]
    (metadata / "entry_points.txt").write_text(f"[{GROUP}]\n{''.join(lines)}")
    return folder


def install_code(monkeypatch: pytest.MonkeyPatch, folder: Path, *code_refs: str) -> None:
    """Register code in this process, as if it had started with the package installed, until the test ends."""
    monkeypatch.syspath_prepend(str(register_code(folder, *code_refs)))
    registered = list_registered_code.__wrapped__()
    for module in ("optaic.plugins.loading", "worker.code_statement"):
        monkeypatch.setattr(f"{module}.list_registered_code", lambda: registered)
