"""run-service while its database or its orchestrator breaks: nothing lost, nothing doubled."""

import asyncio
import random
from collections import Counter
from collections.abc import Coroutine
from functools import partial
from typing import Any
from urllib.parse import urlsplit, urlunsplit

import grpc
import pytest

from devstack.postgres import Postgres
from optaic.instance.v1 import instance_events_pb2
from optaic.run.v1 import run_pb2, run_service_pb2
from support.orchestrator_runs import FakeOrchestrator
from support.polling import eventually
from support.postgres import service_database
from support.proxy import Proxy
from support.run_service import RunningRunService, run_service

pytestmark = pytest.mark.faults


def _through(urls: dict[str, str], proxy: Proxy) -> dict[str, str]:
    address = urlsplit(proxy.url).netloc.rpartition("@")[2]
    parts = {name: urlsplit(url) for name, url in urls.items()}
    return {
        name: urlunsplit(each._replace(netloc=f"{each.netloc.rpartition('@')[0]}@{address}"))
        for name, each in parts.items()
    }


async def _all_dispatched(service: RunningRunService, runs: list[run_pb2.Run]) -> bool:
    service.clock.advance(5)
    return all([(await service.get(run.run_id)).orchestrator_run_id for run in runs])


async def test_prefect_down_while_runs_are_submitted(postgres_server: Postgres, nats_url: str) -> None:
    """It comes back, answers some creations into the void, and each run still has one flow run."""
    del postgres_server
    orchestrator = FakeOrchestrator()
    orchestrator.is_down = True
    async with run_service(nats_url, has_loops=True, orchestrator=orchestrator) as service:
        runs = [await service.submit(service.instances.add()) for _ in range(30)]
        service.clock.advance(60)
        orchestrator.lost_answers = 7
        orchestrator.is_down = False
        await eventually(lambda: _all_dispatched(service, runs))
        assert Counter(request.run_id for request in orchestrator.creations) == Counter(
            run.run_id for run in runs
        )
        assert len(orchestrator.flow_runs) == 30


async def test_a_database_that_is_cut_loses_no_accepted_run(postgres_server: Postgres, nats_url: str) -> None:
    """Every submit that was answered is there; one that was not is there once or not at all."""
    del postgres_server
    async with service_database("run", "run_service") as urls, Proxy(urls["database_url"]) as proxy:
        through = _through(urls, proxy)
        async with run_service(nats_url, urls=through, has_loops=True, pool_timeout_seconds=1) as service:
            accepted: list[str] = []

            async def submit(request_id: str) -> None:
                instance = service.instances.add()
                for _ in range(60):
                    try:
                        accepted.append((await service.submit(instance, request_id=request_id)).run_id)
                    except grpc.aio.AioRpcError:
                        await asyncio.sleep(0.05)  # the pause of a caller that tries again
                    else:
                        return
                raise AssertionError("never accepted")

            def has_more_than(count: int) -> bool:
                return len(accepted) > count or len(accepted) == 40

            submitting = [asyncio.create_task(submit(f"r{number}")) for number in range(40)]
            for _ in range(3):
                count = len(accepted)
                proxy.cut()
                await asyncio.sleep(0.1)  # the length of the outage, not a wait for something
                proxy.heal()
                await eventually(partial(has_more_than, count))
            await asyncio.gather(*submitting)
            listed = await service.runs.ListRuns(run_service_pb2.ListRunsRequest(page_size=1000))
            assert sorted(run.run_id for run in listed.runs) == sorted(accepted)
            assert len(set(accepted)) == 40

            async def published() -> bool:
                info = await service.nats.jetstream().stream_info("RUN_EVENTS")
                return bool(info.state.messages >= 40)

            await eventually(published)


async def test_a_lease_survives_a_database_that_is_away(postgres_server: Postgres, nats_url: str) -> None:
    """No heartbeat could be accepted, so none was missed."""
    del postgres_server
    async with (
        service_database("run", "run_service") as urls,
        Proxy(urls["database_url"]) as proxy,
        run_service(nats_url, urls=_through(urls, proxy), pool_timeout_seconds=1) as service,
    ):
        run = await service.submit(service.instances.add())
        await service.start(run.run_id)
        await service.leases.step()
        proxy.cut()
        for _ in range(6):
            service.clock.advance(10)
            with pytest.raises(Exception, match="database"):
                await service.leases.step()
        proxy.heal()
        await service.leases.step()
        await service.leases.step()
        assert (await service.get(run.run_id)).status == run_pb2.RUN_STATUS_RUNNING


async def test_reports_repeated_in_any_order_end_a_run_once(postgres_server: Postgres, nats_url: str) -> None:
    """Three copies of each report of one executor, shuffled: one end, and what follows it is refused."""
    del postgres_server
    seed = random.Random(7)
    async with run_service(nats_url) as service:
        for _ in range(10):
            run = await service.submit(service.instances.add())
            flow_run_id = await service.dispatched(run.run_id)
            token = (await service.start(run.run_id, flow_run_id)).fencing_token
            reports: list[Coroutine[Any, Any, object]] = []
            for _ in range(3):
                reports += [
                    service.start(run.run_id, flow_run_id),
                    service.heartbeat(run.run_id, token, progress_pct=50),
                    service.complete(run.run_id, token),
                    service.fail(run.run_id, token),
                    service.cancel(run.run_id),
                ]
            seed.shuffle(reports)
            await asyncio.gather(*reports, return_exceptions=True)
            types = await service.activity_types(run.run_id)
            ends = [each for each in types if each.rpartition(".")[2] in {"completed", "failed", "cancelled"}]
            assert len(ends) == 1
            status = run_pb2.RunStatus.Name((await service.get(run.run_id)).status)
            assert ends == [f"pipeline_run.{status.removeprefix('RUN_STATUS_').lower()}"]


async def test_deletion_and_submission_at_once_leave_nothing_running(
    postgres_server: Postgres, nats_url: str
) -> None:
    """Whichever comes first, no run of the deleted instance stays active."""
    del postgres_server
    async with run_service(nats_url, has_loops=True) as service:
        instances = [service.instances.add() for _ in range(20)]

        async def delete(index: int) -> None:
            message = instance_events_pb2.InstanceDeletionRequested(instance=instances[index])
            await service.publish("instance", message, "deletion_requested", instances[index].instance_id)

        await asyncio.gather(
            *(service.submit(instance) for instance in instances),
            *(delete(index) for index in range(20)),
            return_exceptions=True,
        )

        async def none_is_active() -> bool:
            listed = await service.runs.ListRuns(
                run_service_pb2.ListRunsRequest(
                    statuses=[run_pb2.RUN_STATUS_PENDING, run_pb2.RUN_STATUS_RUNNING], page_size=1000
                )
            )
            return not listed.runs

        async def all_are_consumed() -> bool:
            info = await service.nats.jetstream().consumer_info("INSTANCE_EVENTS", "run-instance")
            return bool(info.num_pending == 0 and info.num_ack_pending == 0)

        await eventually(all_are_consumed)
        assert await none_is_active()
