"""The dependencies that every use case receives; `app` makes them once."""

from __future__ import annotations

from dataclasses import dataclass

from lineage_service.ports import Calendars
from servicekit.clock import Clock
from servicekit.database import Database
from servicekit.ids import IdSource
from servicekit.signing import Signer


@dataclass(frozen=True)
class Dependencies:
    """The database, the clock, the source of ids, the signer and the calendars."""

    database: Database
    clock: Clock
    ids: IdSource
    signer: Signer
    calendars: Calendars
