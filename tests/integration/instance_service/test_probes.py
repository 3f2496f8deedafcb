"""Which sources workers get to probe, when, and what comes of their reports."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime

import sqlalchemy as sa

from instance_service.use_cases import probing
from optaic.common.v1.flow_pb2 import FLOW_KIND_REFRESH
from optaic.instance.v1.instance_events_pb2 import SourceProbed
from optaic.instance.v1.instance_pb2 import Instance
from optaic.instance.v1.instance_service_pb2 import GetInstanceRequest
from optaic.instance.v1.probe_service_pb2 import ClaimProbesRequest, FinishProbeRequest, Probe
from optaic.rules.probes import CLAIM
from optaic.run.v1.run_pb2 import Run
from support.broker import listen
from support.clock import FakeClock
from support.instance_service import RunningInstanceService, derived, refusal
from support.polling import eventually

TENANT = "default"


class Sources:
    """The use cases, with a clock that stands still until a test moves it."""

    def __init__(self, service: RunningInstanceService) -> None:
        self.service = service
        self.clock = FakeClock(datetime(2030, 1, 1, tzinfo=UTC))
        self._deps = replace(service.app.deps, clock=self.clock)

    async def claim(self, most: int = 10) -> list[tuple[str, int]]:
        """Take sources that are due: their instances and newest runs."""
        answer = await probing.claim_probes(self._deps, TENANT, ClaimProbesRequest(most=most))
        return [(each.instance_id, each.run_number) for each in answer.probes]

    async def finish(self, instance: Instance, run_number: int, token: str = "", problem: str = "") -> None:
        """Report what has come of a probe."""
        probe = Probe(instance_id=instance.instance_id, run_number=run_number)
        request = FinishProbeRequest(probe=probe, source_token=token, problem=problem)
        await probing.finish_probe(self._deps, TENANT, request)

    async def create(self, name: str, project_id: str) -> Instance:
        """Create a dataset whose source is probed every minute."""
        prices = await self.service.prices(project_id, name)
        await self.service.until_active(prices.instance_id)
        return await self.service.update(prices.instance_id, {"probe_interval": "60s"}, "probe_interval")

    async def run(self, instance: Instance, number: int) -> None:
        """Have a run completed, and wait until the service knows."""
        run = Run(instance_id=instance.instance_id, flow_kind=FLOW_KIND_REFRESH, run_number=number)
        await self.service.publish_run(run)

        async def is_known() -> bool:
            statement = sa.text(
                "select 1 from outputs where instance_id = cast(:id as uuid) and run_number = :number"
            )
            async with self._deps.database.read(TENANT) as connection:
                rows = await connection.execute(statement, {"id": instance.instance_id, "number": number})
                return rows.first() is not None

        await eventually(is_known)

    async def conditions(self, instance: Instance) -> list[str]:
        """Return what the instance says of its probes."""
        request = GetInstanceRequest(instance_id=instance.instance_id)
        found = await self.service.instances.GetInstance(request)
        return [each.message for each in found.conditions if each.type == "SourceProbed"]


async def test_a_source_is_due_after_its_interval_and_given_to_one_worker(
    service: RunningInstanceService,
) -> None:
    sources = Sources(service)
    project = (await service.project()).project_id
    one, two = [await sources.create(name, project) for name in ("one", "two")]
    await service.prices(project, "never")
    assert await sources.claim() == []  # there is nothing that a token could be compared with
    await sources.run(one, 1)
    await sources.run(two, 4)
    assert sorted(await sources.claim(1) + await sources.claim()) == sorted(
        [(one.instance_id, 1), (two.instance_id, 4)]
    )
    assert await sources.claim() == []
    subscription = await listen(service.nats, "optaic.*.instance.v1.source_probed.>")
    await sources.finish(one, 1, "a")
    told = SourceProbed.FromString((await subscription.next_msg(20)).data)
    assert (told.flow.instance_id, told.run_number, told.source_token, told.probe_number) == (
        one.instance_id,
        1,
        "a",
        1,
    )
    sources.clock.advance(59)
    assert await sources.claim() == []
    sources.clock.advance(1)
    assert await sources.claim() == [(one.instance_id, 1)]
    sources.clock.advance(CLAIM.total_seconds() - 60)  # nobody has reported on the other one
    assert await sources.claim() == [(two.instance_id, 4)]


async def test_failures_of_probes_are_counted_and_shown_until_one_succeeds(
    service: RunningInstanceService,
) -> None:
    sources = Sources(service)
    prices = await sources.create("one", (await service.project()).project_id)
    await sources.run(prices, 1)
    await sources.claim()
    for count in (1, 2):
        await sources.finish(prices, 1, problem="SourceNotFound: no such file")
        assert await sources.conditions(prices) == [
            f"the source could not be probed {count} times in a row: SourceNotFound: no such file"
        ]
    await sources.finish(prices, 1)
    assert "has no token" in (await sources.conditions(prices))[0]
    await sources.finish(prices, 1, "a")
    assert await sources.conditions(prices) == []
    await sources.finish(prices, 1, problem="again")
    await service.update(prices.instance_id, {}, "probe_interval")
    assert await sources.conditions(prices) == []
    sources.clock.advance(3_600)
    assert await sources.claim() == []
    await sources.finish(prices, 1, problem="late")  # nobody wants to know any more
    assert await sources.conditions(prices) == []


async def test_only_what_has_a_source_is_probed_and_at_most_once_a_minute(
    service: RunningInstanceService,
) -> None:
    project = (await service.project()).project_id
    prices = await service.prices(project)
    refused = await refusal(service.update(prices.instance_id, {"probe_interval": "59s"}, "probe_interval"))
    assert "instance.probe_interval" in refused.fields
    given = derived(project, "shown", prices.instance_id) | {"probe_interval": "60s"}
    given |= {"experiment": {}, "definition_name": "RANK", "config": {"x": "close"}}
    del given["dataset"]
    refused = await refusal(service.create(given))
    assert "instance.probe_interval" in refused.fields
