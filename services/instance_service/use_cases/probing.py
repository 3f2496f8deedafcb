"""Hand out the sources that are due to be probed, and record what workers report of them."""

from __future__ import annotations

from instance_service.resources.conversion import timestamp
from instance_service.resources.instances.conditions import SOURCE_PROBED, clear_condition, set_condition
from instance_service.store import instances as store
from instance_service.store import probes
from instance_service.use_cases.dependencies import Dependencies
from optaic.common.v1.flow_pb2 import FLOW_KIND_REFRESH, FlowRef
from optaic.instance.v1.instance_events_pb2 import SourceProbed
from optaic.instance.v1.instance_pb2 import Instance
from optaic.instance.v1.probe_service_pb2 import (
    ClaimProbesRequest,
    ClaimProbesResponse,
    FinishProbeRequest,
    FinishProbeResponse,
    Probe,
)
from optaic.rules.probes import CLAIM
from servicekit import outbox
from servicekit.database import Connection


async def claim_probes(
    deps: Dependencies, tenant_id: str, request: ClaimProbesRequest
) -> ClaimProbesResponse:
    """Give the caller sources that are due; each becomes due again when the lease ends."""
    now = deps.clock.now()
    async with deps.database.transaction(tenant_id) as connection:
        claimed = await probes.claim_probes(
            connection, tenant_id, now=now, lease_time=now + CLAIM, most=request.most or 1
        )
    return ClaimProbesResponse(probes=[Probe(**each._asdict()) for each in claimed])


async def finish_probe(
    deps: Dependencies, tenant_id: str, request: FinishProbeRequest
) -> FinishProbeResponse:
    """Publish the token of a source; show how often it could not be had, and why, as a condition."""
    instance_id, token = request.probe.instance_id.lower(), request.source_token
    problem = request.problem or ("" if token else "its pipeline has no token of the source")
    async with deps.database.transaction(tenant_id) as connection:
        finished = await probes.finish_probe(
            connection, tenant_id, instance_id, now=deps.clock.now(), is_answered=not problem
        )
        if finished is None:
            return FinishProbeResponse()
        if problem:
            text = f"the source could not be probed {finished.failures} times in a row: {problem}"
            await _show(deps, connection, tenant_id, instance_id, text)
            return FinishProbeResponse()
        if finished.failures_before:
            await _show(deps, connection, tenant_id, instance_id, "")
        probed = SourceProbed(
            flow=FlowRef(instance_id=instance_id, flow_kind=FLOW_KIND_REFRESH),
            run_number=request.probe.run_number,
            source_token=token,
            probe_number=finished.probe_number,
        )
        await outbox.append(connection, [deps.events(tenant_id).source_probed(probed)])
    return FinishProbeResponse()


async def _show(
    deps: Dependencies, connection: Connection, tenant_id: str, instance_id: str, problem: str
) -> None:
    """Set the condition that says why a source could not be probed; without a problem, clear it."""
    for snapshot in await store.lock_instances(connection, tenant_id, [instance_id]):
        instance = Instance.FromString(snapshot)
        if problem:
            set_condition(instance, SOURCE_PROBED, "ProbeFailed", problem, timestamp(deps.clock.now()))
        else:
            clear_condition(instance, SOURCE_PROBED)
        await store.update_snapshots(connection, tenant_id, {instance_id: instance.SerializeToString()})
