"""A file as a listing shows it."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime


@dataclass(frozen=True)
class File:
    """A file below a folder."""

    path: str  # below the folder
    size: int
    changed: datetime
    mark: str = ""  # another one, if the content is another one
