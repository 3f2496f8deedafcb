"""Runs for a range of dates, in the comparison of lineage-service with its model."""

from __future__ import annotations

from collections.abc import Collection

from lineage_service.admission_conversion import admission_message
from lineage_service.domain.increments import why_full
from lineage_service.use_cases.admission import Answer
from optaic.run.v1 import run_pb2
from run_service.domain.ranges import covers_changes


class Ranged:
    """A run for a range of dates, whose executor says which dates follow from the changes of its inputs: in January 2024."""

    def __init__(self, number: int) -> None:
        self.start, self.end = 1 + number % 3 * 9, (28, 20, 0)[number // 3 % 3]  # 0: without an end
        self.looks_back = bool(number & 64)
        self.is_told = number % 5 != 0

    def covers(self, answer: Answer) -> bool:
        """Return what run-service says of it, from the answer of lineage-service."""
        found, because = answer.admission, why_full(answer.admission.flow, answer.admission.direct)
        told = admission_message(found.revision, found.flow, found.direct, [], because)
        run = run_pb2.Run(
            is_partial_range=True,
            compute_fingerprint=found.flow.fingerprint,
            input_versions=told.input_versions,
            base_version=told.base_version,
            allows_incremental=told.allows_incremental,
        )
        run.parameters.update(
            {"start": _january(self.start), **({"end": _january(self.end)} if self.end else {})}
        )
        changed = [each for each in told.input_versions if each.change_start]
        start = min((each.change_start for each in changed), default="")
        end = max((each.change_end for each in changed), default="")
        affected = start, _january(28) if start and self.looks_back else end
        return covers_changes(run, affected if self.is_told else None)

    def has_all(self, changes: Collection[tuple[str, str]]) -> bool:
        """Return whether the range has all dates that a run without one would compute to other values."""
        days = {day for start, end in changes for day in range(1, 32) if start <= _january(day) <= end}
        if days and self.looks_back:
            days |= set(range(min(days), 29))
        return bool(changes) and self.is_told and days <= set(range(self.start, (self.end or 31) + 1))


def _january(day: int) -> str:
    return f"2024-01-{day:02}"
