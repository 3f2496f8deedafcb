"""The knowledge that a worker keeps from one sweep to the next while it runs, so that the next one reads less; bounded."""

from __future__ import annotations

from collections import OrderedDict

from worker.leftovers.delta_log import Known

_MOST_PARTS = 200_000  # of all tables together: about 35 MB


class Memory:
    """The logs of tables that were read, and the instance at which the last sweep stopped."""

    def __init__(self, most_parts: int = _MOST_PARTS) -> None:
        self.stopped_at = ""
        self._most = most_parts
        self._size = 0
        self._tables: OrderedDict[str, tuple[Known, int]] = OrderedDict()

    def recall(self, table: str) -> Known:
        """Return what is known of the log of a table."""
        known, _ = self._tables.get(table, (Known(), 0))
        return known

    def keep(self, table: str, known: Known) -> None:
        """Keep what is known of a log; what was kept longest ago goes where there is no room."""
        _, before = self._tables.pop(table, (known, 0))
        size = len(known.parts) + 1
        self._tables[table] = known, size
        self._size += size - before
        while self._size > self._most:
            _, (_, gone) = self._tables.popitem(last=False)
            self._size -= gone
