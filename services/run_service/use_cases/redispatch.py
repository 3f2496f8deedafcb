"""Give a run that no worker has started another flow run; end the one before, and refuse its late reports."""

from __future__ import annotations

from collections.abc import Collection, Mapping

import structlog

from run_service.domain.pairing import FlowRunState
from run_service.events import activity_row
from run_service.store import activities, endings, queues
from run_service.store import runs as run_store
from run_service.store.queues import Dispatch
from run_service.use_cases.dependencies import Dependencies
from run_service.use_cases.ending import make_ending
from run_service.use_cases.transitions import announce

_log = structlog.get_logger(__name__)


async def dispatch_again(
    deps: Dependencies, tenant_id: str, dispatches: Collection[Dispatch], states: Mapping[str, FlowRunState]
) -> None:
    """Dispatch pending runs again; a flow run that the orchestrator no longer has does not count."""
    now = deps.clock.now()
    old = {
        dispatch.run_id: (dispatch, states.get(dispatch.orchestrator_run_id or "")) for dispatch in dispatches
    }
    async with deps.database.transaction(tenant_id) as connection:
        pairs = {dispatch.run_id: str(dispatch.orchestrator_run_id) for dispatch in dispatches}
        records = await run_store.part_from_flow_runs(connection, tenant_id, pairs)
        parted = {record.run.run_id for record in records}
        lost = [dispatch for run_id, (dispatch, state) in old.items() if run_id in parted and state]
        for is_lost in (True, False):
            keys = [
                dispatch.key
                for run_id, (dispatch, state) in old.items()
                if run_id in parted and (state is not None) is is_lost
            ]
            await queues.renew_dispatches(connection, keys, now, is_next=is_lost)
        await endings.insert_endings(
            connection,
            [
                make_ending(
                    deps,
                    tenant_id,
                    str(dispatch.orchestrator_run_id),
                    FlowRunState.CANCELLED,
                    "no worker started the run; another flow run takes its place",
                    instance_id=dispatch.instance_id,
                    run_id=dispatch.run_id,
                )
                for dispatch in lost
            ],
        )
        rows = [
            activity_row(
                "dispatched_again",
                tenant_id,
                record.run.run_id,
                record.kind,
                activity_id=deps.ids(),
                actor="run-service",
                now=now,
                message=_why(*old[record.run.run_id]),
                details={"orchestrator_run_id": old[record.run.run_id][0].orchestrator_run_id},
            )
            for record in records
        ]
        await activities.insert_activities(connection, rows)
    _log.warning("dispatched again", tenant=tenant_id, run_ids=sorted(parted))
    announce(deps, tenant_id, records)
    deps.wake_dispatcher()
    deps.wake_ender()


def _why(dispatch: Dispatch, state: FlowRunState | None) -> str:
    if state is None:
        return f"flow run {dispatch.orchestrator_run_id} was deleted"
    return f"flow run {dispatch.orchestrator_run_id} is {state} and has not started the run"
