"""The dependencies that every use case receives; `app` makes them once."""

from __future__ import annotations

from dataclasses import dataclass

from servicekit.clock import Clock
from servicekit.database import Database
from servicekit.ids import IdSource
from servicekit.signing import Signer


@dataclass(frozen=True)
class Dependencies:
    """The database, the clock, the source of ids and the signer."""

    database: Database
    clock: Clock
    ids: IdSource
    signer: Signer
