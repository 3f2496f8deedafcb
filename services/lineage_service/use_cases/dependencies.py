"""The dependencies that every use case receives."""

from __future__ import annotations

from dataclasses import dataclass

from servicekit.clock import Clock
from servicekit.database import Database
from servicekit.ids import IdSource
from servicekit.signing import Signer


@dataclass(frozen=True)
class Dependencies:
    """The database, the clock and the source of ids; the first argument of each use case."""

    database: Database
    clock: Clock
    ids: IdSource
    signer: Signer
