"""The level-triggered loops of this service: they keep the watch's log and the history bounded, and touch nothing else."""

from datetime import UTC, datetime, timedelta

from servicekit.clock import Clock
from servicekit.database import Database
from status_service.store.changes import compact_changes
from status_service.store.history import trim_history
from status_service.store.positions import trim_positions

_STEP = 5_000


class Compaction:
    """The loop that drops the oldest changes, a bounded number in one transaction."""

    def __init__(self, database: Database, retention_revisions: int) -> None:
        self._database = database
        self._retention = retention_revisions

    async def step(self) -> bool:
        """Drop some of the oldest changes; return whether there may be more."""
        async with self._database.infra() as connection:
            return await compact_changes(connection, self._retention, _STEP)


class Trimming:
    """The loop that removes the history that is no longer kept, a bounded part in one transaction."""

    def __init__(self, database: Database, clock: Clock, kept_history: timedelta) -> None:
        self._database = database
        self._clock = clock
        self._kept = kept_history
        # Entries up to this time were looked at, so that those that stay are not looked at again and again.
        self._position = datetime.min.replace(tzinfo=UTC)

    async def step(self) -> bool:
        """Remove some of the oldest history; return whether there may be more."""
        horizon = self._clock.now() - self._kept
        async with self._database.infra() as connection:
            passed = await trim_history(connection, self._position, horizon, _STEP)
            await trim_positions(connection, self._position, passed or horizon)
        self._position = passed or self._position
        return passed is not None
