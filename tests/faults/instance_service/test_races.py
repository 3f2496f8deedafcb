"""Two that do the same at once: exactly one wins, and nothing is doubled."""

import asyncio
import os

import grpc
import psycopg
import pytest

from devstack.postgres import Postgres
from instance_service.resources.instances import revisions
from instance_service.use_cases import mutation
from optaic.definition.v1.definition_service_pb2 import ListDefinitionsRequest
from servicekit.ids import new_id
from servicekit.migrations import migrate
from support.counterparts import FakeDeployments
from support.instance_service import (
    RunningInstanceService,
    derived,
    instance_database,
    instance_service,
    running,
)
from support.postgres import create_bare_database

pytestmark = pytest.mark.faults
_PAIRS = 1000 if os.environ.get("OPTAIC_FAULTS") == "full" else 25


async def _close_cycles(service: RunningInstanceService, pairs: int) -> list[list[str]]:
    """Let two edits close a cycle at once, again and again; return what each said."""
    project_id = (await service.project()).project_id
    prices = (await service.prices(project_id)).instance_id
    outcomes = []
    for number in range(pairs):
        one = (await service.derived(project_id, f"a{number}", prices)).instance_id
        two = (await service.derived(project_id, f"b{number}", prices)).instance_id

        async def edit(instance_id: str, upstream: str) -> str:
            refs = {"upstreamRefs": derived(project_id, "", prices, upstream)["upstreamRefs"]}
            try:
                await service.update(instance_id, refs, "upstream_refs")
            except grpc.aio.AioRpcError as error:
                assert error.code() == grpc.StatusCode.FAILED_PRECONDITION  # noqa: PT017 - the code is the point
                return "refused"
            return "accepted"

        outcomes.append(sorted(await asyncio.gather(edit(one, two), edit(two, one))))
    return outcomes


async def test_one_of_two_edits_that_close_a_cycle_wins(postgres_server: Postgres, nats_url: str) -> None:
    del postgres_server
    async with instance_service(nats_url, drift_interval_seconds=60) as service:
        assert await _close_cycles(service, _PAIRS) == [["accepted", "refused"]] * _PAIRS


async def test_without_the_lock_a_cycle_closes(
    postgres_server: Postgres, nats_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The mitigation off: both edits check before either has committed. Nor do they wait to be counted."""
    del postgres_server
    meeting = asyncio.Barrier(2)
    check = revisions._check_cycle

    async def check_together(*arguments: object) -> None:
        await check(*arguments)  # type: ignore[arg-type]  # passed on as they are
        await asyncio.wait_for(meeting.wait(), 10)

    async def lock_nothing(*_: object) -> None:
        return None

    monkeypatch.setattr(mutation, "lock_tenant", lock_nothing)
    monkeypatch.setattr(revisions, "_check_cycle", check_together)
    async with instance_service(nats_url, drift_interval_seconds=60) as service:
        with psycopg.connect(service.owner_url.replace("+psycopg", "")) as connection:
            connection.execute("alter table instance_revisions disable trigger user")
        assert await _close_cycles(service, 1) == [["accepted", "accepted"]]


async def test_one_of_many_creations_of_one_name_wins(postgres_server: Postgres, nats_url: str) -> None:
    del postgres_server
    async with instance_service(nats_url) as service:
        project = await service.project()

        async def create() -> str:
            try:
                return (await service.prices(project.project_id)).instance_id
            except grpc.aio.AioRpcError as error:
                assert error.code() == grpc.StatusCode.ALREADY_EXISTS  # noqa: PT017 - the code is the point
                return ""

        made = [
            instance_id for instance_id in await asyncio.gather(*(create() for _ in range(50))) if instance_id
        ]
        assert len(made) == 1
        assert (await service.row_counts())["instances"] == 4  # with its components


async def test_many_repetitions_of_one_request_create_once(postgres_server: Postgres, nats_url: str) -> None:
    del postgres_server
    async with instance_service(nats_url) as service:
        project = await service.project()
        dataset = {"pipeline": {"definitionName": "sp500_prices"}}
        given = {"projectId": project.project_id, "name": "prices", "dataset": dataset}
        made = await asyncio.gather(*(service.create(given, request_id="same") for _ in range(50)))
        assert len({instance.instance_id for instance in made}) == 1
        assert (await service.row_counts())["instances"] == 4  # with its components


async def test_two_replicas_start_at_once_and_share_the_work(
    postgres_server: Postgres, nats_url: str
) -> None:
    del postgres_server
    urls = await create_bare_database(f"instance_{new_id().replace('-', '')}", "instance")
    owner_url = urls["database_owner_url"]
    await asyncio.gather(*(migrate(owner_url, "instance_service") for _ in range(2)))
    deployments = FakeDeployments()
    async with running(nats_url, urls, deployments) as one, running(nats_url, urls, deployments) as two:
        listed = await two.definitions.ListDefinitions(ListDefinitionsRequest())
        published = [(definition.kind, definition.name) for definition in listed.definitions]
        assert len(published) == len(set(published)) > 0
        project = await one.project()
        made = await asyncio.gather(
            *((one if number % 2 else two).prices(project.project_id, f"p{number}") for number in range(10))
        )
        for instance in made:
            await two.until_active(instance.instance_id)
        assert len(deployments.stored) == deployments.writes == 10


async def test_a_restart_finds_the_work_that_was_left(postgres_server: Postgres, nats_url: str) -> None:
    del postgres_server
    deployments = FakeDeployments()
    deployments.break_down()
    async with instance_database() as urls:
        async with running(nats_url, urls, deployments, activation_wait_seconds=0) as service:
            project = await service.project()
            prices = await service.prices(project.project_id)
        deployments.recover()
        async with running(nats_url, urls, deployments) as service:
            active = await service.until_active(prices.instance_id)
            assert active.flows[0].prefect_deployment_id
