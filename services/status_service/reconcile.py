"""The level-triggered loop of this service: it keeps the watch's log bounded, and touches nothing else."""

from servicekit.database import Database
from status_service.store.changes import compact_changes

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
