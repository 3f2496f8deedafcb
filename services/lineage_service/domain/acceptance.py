"""The rule when somebody may declare a stale output right; a pure function."""

from __future__ import annotations

from collections.abc import Iterable

from lineage_service.domain import errors
from lineage_service.domain.flows import Flow
from lineage_service.domain.statuses import Activity


def check_acceptable(flow: Flow, upstreams: Iterable[Flow]) -> None:
    """Refuse to accept the staleness of a flow; `upstreams` are those that it is connected to.

    Raises:
        FailedPreconditionError: FLOW_IS_RUNNING, FLOW_WITHOUT_OUTPUT, FLOW_IS_FRESH or UPSTREAM_NOT_FRESH.
    """
    if flow.activity is Activity.RUNNING:
        raise errors.run_active(flow.instance_name, flow.run_number)
    if not flow.version:
        raise errors.no_output(flow.instance_name)
    if flow.is_fresh:
        raise errors.flow_is_fresh(flow.instance_name)
    not_fresh = {upstream.key: upstream.instance_name for upstream in upstreams if not upstream.is_fresh}
    if not_fresh:
        raise errors.upstream_not_fresh(flow.instance_name, not_fresh)
