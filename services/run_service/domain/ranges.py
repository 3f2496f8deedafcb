"""The rule for when a run for a range of dates counts as one without."""

from __future__ import annotations

from optaic.rules.run_parameters import END, START
from optaic.run.v1.run_pb2 import Run


def covers_changes(run: Run, affected: tuple[str, str] | None) -> bool:
    """Return whether a run without a range would have changed no date outside the range of this one.

    Args:
        run: a run for a range of dates, with what lineage-service said of its inputs when it was admitted.
        affected: the first and the last date of the output that follow from the changes of the inputs, as the executor says;
            both empty: none. None: any date may.
    """
    if affected is None or (affected[0] == "") is not (affected[1] == ""):
        return False
    if not run.is_partial_range or not run.allows_incremental:
        return False
    if run.base_version.compute_fingerprint != run.compute_fingerprint:
        return False
    changed = (date for each in run.input_versions for date in (each.change_start, each.change_end))
    start, end = (run.parameters.fields[name].string_value for name in (START, END))
    # Dates are texts of the form YYYY-MM-DD, in whose order they come.
    return all(start <= date and (not end or date <= end) for date in (*changed, *affected) if date)
