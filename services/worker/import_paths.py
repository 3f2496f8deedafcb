"""Check the folders that Python imports from: runs must not be able to put code or packages there."""

from __future__ import annotations

import stat
import sys
from collections.abc import Iterable
from pathlib import Path

from optaic.rules.locations import local_path
from worker.config import Settings


class UnsafeImportPathError(RuntimeError):
    """Python imports from a folder that runs or other users may write to."""


def check_import_paths(settings: Settings, folders: Iterable[str] = sys.path) -> None:
    """Check every folder of Python's path, once, before anything is read from it for a run.

    Raises:
        UnsafeImportPathError: One lies where runs write, or everybody may write to it.
    """
    written = {"OPTAIC_DATA_ROOT": settings.data_root, "OPTAIC_RUN_OUTPUT_FOLDER": settings.run_output_folder}
    places = {
        name: Path(place).resolve()
        for name, value in written.items()
        if "://" not in (place := local_path(value))  # no storage elsewhere
    }
    for folder in folders:
        path = Path(folder).resolve()
        for name, written_to in places.items():
            if path.is_relative_to(written_to):
                raise UnsafeImportPathError(
                    f"Python imports from {path}, which lies in {name} ({written_to}), where runs write; "
                    f"remove it from PYTHONPATH, or set {name} to another folder"
                )
        if path.is_dir() and path.stat().st_mode & stat.S_IWOTH:
            raise UnsafeImportPathError(
                f"Python imports from {path}, which every user may write to; run chmod o-w on it, "
                "or remove it from PYTHONPATH"
            )
