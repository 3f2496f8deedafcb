"""Check which flows a refresh is asked for."""

from __future__ import annotations

from optaic.run.v1.refresh_pb2 import RefreshSelection
from run_service.domain.refresh_errors import selection_required


def check_selection(selection: RefreshSelection) -> None:
    """Refuse a selection that is none, or more than one.

    Raises:
        InvalidArgumentError: It names the field `selection`.
    """
    ways = {
        "instance_ids": bool(selection.instance_ids),
        "project_id or labels": bool(selection.project_id or selection.labels),
        "all": selection.all,
    }
    given = [name for name, is_given in ways.items() if is_given]
    if len(given) != 1:
        raise selection_required(given)
