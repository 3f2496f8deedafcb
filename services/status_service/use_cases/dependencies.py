"""Declare the dependencies that every use case receives."""

from __future__ import annotations

from dataclasses import dataclass

from servicekit.clock import Clock
from servicekit.database import Database
from servicekit.ids import IdSource
from servicekit.signing import Signer
from status_service.use_cases.watching import ChangeFeed


@dataclass(frozen=True)
class Dependencies:
    """The database, the feed of changes, the clock, the ids and the signer; the first argument of each use case."""

    database: Database
    feed: ChangeFeed
    clock: Clock
    ids: IdSource
    signer: Signer
