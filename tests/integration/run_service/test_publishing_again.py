"""Publishing again: runs that another service is missing are published again, unless they wait in the outbox."""

from __future__ import annotations

import sqlalchemy as sa

from run_service.use_cases.comparison import publish_again
from support.run_service import TENANT, RunningRunService


async def test_an_event_in_the_outbox_is_not_published_twice(service: RunningRunService) -> None:
    waiting, published = [service.instances.add() for _ in range(2)]
    for instance in (waiting, published):
        await service.submit(instance)
    deps = service.app.deps
    flows = {(instance.instance_id, "refresh") for instance in (waiting, published)}
    async with deps.database.infra() as connection:
        statement = sa.text("delete from outbox where resource_id = :instance_id")
        await connection.execute(statement, {"instance_id": published.instance_id})
    for expected in (["submitted"] * 2, ["submitted"] * 2):
        await publish_again(deps, TENANT, flows)
        assert await service.outbox_types() == expected
    async with deps.database.infra() as connection:
        await connection.execute(sa.text("delete from outbox"))
    await publish_again(deps, TENANT, flows)
    assert await service.outbox_types() == ["submitted"] * 2
