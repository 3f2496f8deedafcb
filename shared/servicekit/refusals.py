"""Bound what refused calls write into the log: the first ones have a line each, the others are counted."""

from __future__ import annotations

from collections import Counter

import structlog

REPORT_SECONDS = 60.0
_LINES = 60  # of each tenant between two reports; callers without a valid token count as one tenant
_MOST_COUNTED = 10_000  # tenants and reasons between two reports
_OTHERS = ("(others)", "(others)")
_log = structlog.get_logger(__name__)


class Refusals:
    """The refused calls of this process since the last report."""

    def __init__(self) -> None:
        self._lines: Counter[str] = Counter()
        self._counted: Counter[tuple[str, str]] = Counter()

    def may_log(self, tenant_id: str, reason: str) -> bool:
        """Return whether a refused call gets a line of its own; otherwise it is counted."""
        key = tenant_id if tenant_id in self._lines or len(self._lines) < _MOST_COUNTED else _OTHERS[0]
        self._lines[key] += 1
        if self._lines[key] <= _LINES:
            return True
        self.count(tenant_id, reason)
        return False

    def count(self, tenant_id: str, reason: str) -> None:
        """Count a refused call that gets no line of its own."""
        key = (tenant_id, reason)
        self._counted[key if key in self._counted or len(self._counted) < _MOST_COUNTED else _OTHERS] += 1

    def report(self) -> None:
        """Log how many calls of each tenant were refused without a line; the server does so once a minute."""
        for (tenant_id, reason), count in self._counted.items():
            _log.warning("calls refused", tenant=tenant_id, reason=reason, count=count)
        self._lines.clear()
        self._counted.clear()
