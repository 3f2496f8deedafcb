"""The dependencies that every use case receives; `app` makes them once."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta

from servicekit.clock import Clock
from servicekit.database import Database
from servicekit.ids import IdSource
from servicekit.signing import Signer
from status_service.store.statuses import SharedReads
from status_service.use_cases.watching import ChangeFeed


@dataclass(frozen=True)
class RealtimeTokens:
    """The key that signs tokens, how long they are valid, and the tenants whose channels they permit."""

    key: str
    lifetime: timedelta
    tenants: tuple[str, ...]


@dataclass(frozen=True)
class Dependencies:
    """The database and the reads of it that callers share, the clock, ids, the signer, the feed of changes, and two settings.

    The settings are how long history is kept, and how tokens for live messages are made.
    """

    database: Database
    clock: Clock
    ids: IdSource
    signer: Signer
    feed: ChangeFeed
    shared_reads: SharedReads
    kept_history: timedelta
    realtime_tokens: RealtimeTokens
