"""The state of an instance as instance-service has it, through the broker, in status-service."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable

import pytest

from devstack.postgres import Postgres
from instance_service.ports import OutsideUnavailableError
from optaic.instance.v1.instance_events_pb2 import InstanceUpdated
from optaic.instance.v1.instance_pb2 import (
    INSTANCE_STATE_ACTIVE,
    INSTANCE_STATE_DEGRADED,
    INSTANCE_STATE_PAUSED,
    InstanceState,
)
from optaic.instance.v1.instance_service_pb2 import PauseInstanceRequest, ResumeInstanceRequest
from optaic.status.v1.status_service_pb2 import ListInstanceStatusesRequest
from support.instance_service import RunningInstanceService, instance_service
from support.polling import eventually
from support.status_service import RunningStatusService, status_service

Services = tuple[RunningInstanceService, RunningStatusService]


@pytest.fixture
async def services(postgres_server: Postgres, nats_url: str) -> AsyncIterator[Services]:
    """Both services on one broker."""
    del postgres_server
    async with status_service(nats_url) as status, instance_service(nats_url) as instances:
        yield instances, status


def _shown(
    status: RunningStatusService, instance_id: str, state: InstanceState.ValueType
) -> Callable[[], object]:
    async def look() -> bool:
        found = await status.stub.ListInstanceStatuses(ListInstanceStatusesRequest())
        return [one.instance_state for one in found.instance_statuses if one.instance_id == instance_id] == [
            state
        ]

    return look


async def test_each_state_change_without_a_revision_is_shown(services: Services) -> None:
    instances, status = services
    prices = await instances.prices((await instances.project()).project_id)
    subject = f"optaic.default.instance.v1.updated.{prices.instance_id}"
    updates = await instances.nats.jetstream().subscribe(subject, ordered_consumer=True)
    await instances.until_active(prices.instance_id)
    name = prices.flows[0].prefect_deployment_name
    for _ in range(2):
        await eventually(_shown(status, prices.instance_id, INSTANCE_STATE_ACTIVE))
        healthy = instances.deployments.ensure

        async def refuse(_: object) -> None:
            raise OutsideUnavailableError("PrefectUnavailable", "it does not write")

        instances.deployments.ensure = refuse  # type: ignore[assignment, method-assign]  # as the outside system is made to behave
        instances.deployments.edit(name, is_paused=True)
        await eventually(_shown(status, prices.instance_id, INSTANCE_STATE_DEGRADED))
        update = InstanceUpdated.FromString((await updates.next_msg(timeout=5)).data)
        assert (update.author, update.reason) == ("instance-service", "PrefectUnavailable")
        assert (update.instance.state, update.instance.revision) == (INSTANCE_STATE_DEGRADED, 1)
        instances.deployments.ensure = healthy  # type: ignore[method-assign]  # as the outside system is made to behave
    await eventually(_shown(status, prices.instance_id, INSTANCE_STATE_ACTIVE))
    found = await instances.until_active(prices.instance_id)
    assert found.revision == 1
    await instances.instances.PauseInstance(PauseInstanceRequest(instance_id=prices.instance_id))
    await eventually(_shown(status, prices.instance_id, INSTANCE_STATE_PAUSED))
    await instances.instances.ResumeInstance(ResumeInstanceRequest(instance_id=prices.instance_id))
    await eventually(_shown(status, prices.instance_id, INSTANCE_STATE_ACTIVE))
