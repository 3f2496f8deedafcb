"""What every use case works with."""

from __future__ import annotations

from dataclasses import dataclass

from servicekit.clock import Clock
from servicekit.database import Database
from servicekit.ids import IdSource
from servicekit.signing import Signer
from status_service.watch import ChangeFeed


@dataclass(frozen=True)
class Dependencies:
    """Given to each use case first."""

    database: Database
    feed: ChangeFeed
    clock: Clock
    ids: IdSource
    signer: Signer
