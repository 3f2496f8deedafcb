"""Cancel runs on request; the run ends at once, and its flow run follows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from optaic.common.v1.flow_pb2 import FlowKind
from optaic.instance.v1 import instance_events_pb2, instance_pb2
from optaic.run.v1 import run_pb2, run_service_pb2
from run_service.domain.errors import run_not_found
from run_service.domain.statuses import RunEvent, next_status
from run_service.store import runs as run_store
from run_service.use_cases.dependencies import Dependencies
from run_service.use_cases.transitions import announce, change_runs, error_json
from servicekit import idempotency
from servicekit.consumer import Received
from servicekit.context import RequestContext
from servicekit.database import Connection
from servicekit.enums import enum_word

ORCHESTRATOR = "prefect"  # the actor of actions that a user takes in Prefect


async def cancel_run(
    deps: Dependencies, context: RequestContext, request: run_service_pb2.CancelRunRequest
) -> run_pb2.Run:
    """Cancel an active run."""
    tenant_id = context.tenant_id
    payload_hash = idempotency.payload_hash(request)
    async with deps.database.transaction(tenant_id) as connection:
        stored = await idempotency.replay_or_none(connection, "CancelRun", request.request_id, payload_hash)
        if stored is not None:
            return run_pb2.Run.FromString(stored)
        record = await run_store.lock_run(connection, tenant_id, request.run_id)
        if record is None:
            raise run_not_found(request.run_id)
        next_status(request.run_id, record.status, RunEvent.CANCELLED)
        reason = request.reason
        (cancelled,) = await change_runs(
            deps,
            connection,
            tenant_id,
            [request.run_id],
            RunEvent.CANCELLED,
            actor=context.actor,
            message=reason,
            values={"error": error_json("CANCELLED", reason or "on request")},
        )
        await idempotency.store(
            connection, "CancelRun", request.request_id, cancelled.run.SerializeToString()
        )
    announce(deps, tenant_id, [cancelled])
    return cancelled.run


async def cancel_as_orchestrator(deps: Dependencies, tenant_id: str, pairs: Mapping[str, str]) -> None:
    """Cancel active runs whose flow run was cancelled in Prefect, as CancelRun does.

    A run continues if it no longer has the flow run that `pairs` (run id -> flow-run id) names.
    """
    message = "the flow run was cancelled in Prefect"
    async with deps.database.transaction(tenant_id) as connection:
        cancelled = await change_runs(
            deps,
            connection,
            tenant_id,
            list(pairs),
            RunEvent.CANCELLED,
            actor=ORCHESTRATOR,
            message=message,
            pairs=pairs,
            values={"error": error_json("CANCELLED", message)},
        )
    announce(deps, tenant_id, cancelled)


async def cancel_deleted(
    deps: Dependencies, connection: Connection, tenant_id: str, batch: Sequence[Received]
) -> None:
    """Cancel the active runs of instances that are to be deleted, and admit no more runs of them."""
    instances = [
        item.message.instance
        for item in batch
        if isinstance(item.message, instance_events_pb2.InstanceDeletionRequested)
    ]
    if not instances:
        return
    flows = {key for instance in instances for key in _flow_keys(instance)}
    if flows:
        # First the counters: a submission under way commits before this, or is refused by it.
        await run_store.mark_flows_deleted(connection, tenant_id, flows)
    run_ids = await run_store.list_active_run_ids(
        connection, tenant_id, {instance.instance_id for instance in instances}
    )
    message = "the instance is being deleted"
    await change_runs(
        deps,
        connection,
        tenant_id,
        run_ids,
        RunEvent.CANCELLED,
        actor="instance-service",
        message=message,
        values={"error": error_json("INSTANCE_DELETING", message)},
    )


def _flow_keys(instance: instance_pb2.Instance) -> list[tuple[str, str]]:
    return [(instance.instance_id, enum_word(FlowKind, flow.flow_kind)) for flow in instance.flows]
