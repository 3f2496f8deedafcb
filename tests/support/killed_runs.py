"""run-service and a worker as processes of their own, which are killed at chosen moments and started again."""

from __future__ import annotations

import asyncio
import contextlib
import datetime as dt
import json
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Collection
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import grpc
import nats
import psutil

from devstack import ports
from optaic.definition.v1 import definition_service_pb2_grpc
from optaic.instance.v1 import instance_pb2, instance_service_pb2_grpc
from optaic.lineage.v1 import lineage_service_pb2_grpc
from optaic.rules.deployments import work_pool_of
from optaic.run.v1 import run_pb2, run_service_pb2
from optaic.run.v1.run_service_pb2_grpc import RunServiceStub
from servicekit.auth import make_authenticator
from servicekit.server import Server
from servicekit.settings import ServiceSettings
from support.broker import ensure_streams
from support.identities import token_of, tokens_file
from support.listener import Listener
from support.plugin_packages import REGISTERED
from support.polling import eventually
from support.prefect_api import FINAL, PrefectApi
from support.run_moments import PORT
from support.run_peers import SERVICE_TOKEN, Lineage
from support.worker_peers import Definitions, Instances, fill_composition

TENANT = "default"
REFRESH = 1
ACTIVE = frozenset({run_pb2.RUN_STATUS_PENDING, run_pb2.RUN_STATUS_RUNNING})
# Much shorter than in production, so that a campaign ends.
_SHORT = {
    "OPTAIC_LEASE_SECONDS": "6",
    "OPTAIC_HEARTBEAT_SECONDS": "1",
    "OPTAIC_START_TIMEOUT_SECONDS": "15",
    "OPTAIC_OBSERVE_INTERVAL_SECONDS": "0.5",
    "OPTAIC_ORCHESTRATOR_GRACE_SECONDS": "1",
    "OPTAIC_SWEEP_INTERVAL_SECONDS": "1",
    "OPTAIC_DISPATCH_CLAIM_SECONDS": "3",
    "OPTAIC_OBSERVE_CLAIM_SECONDS": "3",
    "OPTAIC_END_CLAIM_SECONDS": "3",
    "OPTAIC_RETRY_CLAIM_SECONDS": "3",
    "OPTAIC_TICK_CLAIM_SECONDS": "3",
    "OPTAIC_DISPATCH_BACKOFF_SECONDS": "1",
    "OPTAIC_END_SETTLE_SECONDS": "10",
    "OPTAIC_TICK_SETTLE_SECONDS": "0.5",
}
_DEADLINE = 300.0  # a few seconds, unless the machine is busy
_NEXT_TRY = 0.01


class KillableProgram:
    """One program; killed as a crash would, alone, without what it has started."""

    def __init__(self, arguments: list[str], environment: dict[str, str], log: Path) -> None:
        self._arguments, self._environment, self._log = arguments, environment, log
        self._process: subprocess.Popen[bytes] | None = None
        # What earlier lives have left, with the group that it belongs to: the number of a group is used again once it is empty.
        self._left: list[tuple[int, list[psutil.Process]]] = []

    @property
    def pid(self) -> int:
        """Its process."""
        assert self._process is not None
        return self._process.pid

    def start(self) -> None:
        """Start it, in a session of its own."""
        with self._log.open("ab") as output:
            self._process = subprocess.Popen(
                [sys.executable, *self._arguments],
                env={**os.environ, **self._environment},
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    def kill(self) -> None:
        """End it at once."""
        assert self._process is not None
        self._process.kill()
        self._process.wait()
        self._left.append((self._process.pid, _list_members(self._process.pid)))

    def end(self) -> None:
        """End it for good, with whatever its lives have left."""
        if self._process is not None:
            self._process.terminate()
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(15)
            self.kill()
        for group, members in self._left:
            if {*members} & {*_list_members(group)}:
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(group, signal.SIGKILL)


def _list_members(group: int) -> list[psutil.Process]:
    members = []
    for process in psutil.process_iter():
        with contextlib.suppress(ProcessLookupError):
            if os.getpgid(process.pid) == group:
                members.append(process)
    return members


class MomentGate(Listener):
    """Counts how often a chosen moment is reached; at the chosen time it strikes, then lets everybody go on."""

    def __init__(self) -> None:
        super().__init__()
        self._moment = ""
        self._remaining = 0
        self._strike: Callable[[int], object] = lambda _: None
        self.struck = asyncio.Event()

    def arm(self, moment: str, times: int, strike: Callable[[int], object]) -> None:
        """Strike at this moment, with the id of the process that reaches it."""
        self._moment, self._remaining, self._strike = moment, times, strike
        self.struck = asyncio.Event()

    def strike_after(self, seconds: float, strike: Callable[[int], bool]) -> None:
        """Strike at a random moment, and until there was something to strike."""
        self._remaining, self.struck = 0, asyncio.Event()
        loop = asyncio.get_running_loop()

        def act() -> None:
            if strike(0):
                self.struck.set()
            else:
                loop.call_later(_NEXT_TRY, act)

        loop.call_later(seconds, act)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        pid, _, moment = (await reader.readline()).decode().strip().partition(" ")
        if moment == self._moment and self._remaining > 0:
            self._remaining -= 1
            if self._remaining == 0:
                self._strike(int(pid))
                self.struck.set()
        writer.write(b".")
        await writer.drain()


@dataclass
class KillWorld:
    """The processes, what they talk to, and the flows that they run."""

    instances: Instances
    prefect: PrefectApi
    pool: str
    gate: MomentGate
    service: KillableProgram
    worker: KillableProgram
    runs: RunServiceStub
    flows: list[instance_pb2.Instance] = field(default_factory=list)
    deployments: dict[str, str] = field(default_factory=dict)

    async def add_flow(self, seconds: float, max_retries: int = 0) -> None:
        """Add an instance whose run takes so long, and is tried again so often."""
        instance = instance_pb2.Instance(
            name=f"probe{len(self.flows)}",
            kind=instance_pb2.INSTANCE_KIND_DATASET,
            state=instance_pb2.INSTANCE_STATE_ACTIVE,
        )
        instance.schedule.interval.minutes = 10_080  # any whole second may be a scheduled time
        if max_retries:
            instance.schedule.retry_policy.max_retries = max_retries
            instance.schedule.retry_policy.delay.FromMilliseconds(10)
        fill_composition(instance.dataset, "probe", {"behaviour": "sleep", "seconds": seconds})
        instance.flows.add(flow_kind=REFRESH, compute_fingerprint="f" * 64)
        instance = self.instances.put(instance)
        self.flows.append(instance)
        name = f"{TENANT}.{instance.instance_id}.refresh"
        self.deployments[instance.instance_id] = await self.prefect.deploy(name, self.pool)

    async def submit(self, instance: instance_pb2.Instance) -> str:
        """Submit a run, again and again where the service is away; return its id."""
        request = run_service_pb2.SubmitRunRequest(
            instance_id=instance.instance_id, request_id=os.urandom(8).hex()
        )
        run: run_pb2.Run = await self._call(self.runs.SubmitRun, request)
        return run.run_id

    async def tick(self, instance: instance_pb2.Instance) -> str:
        """Make a flow run as Prefect's clock does; return its id."""
        return await self.prefect.trigger_at(
            dt.datetime.now(dt.UTC).replace(microsecond=0),
            self.deployments[instance.instance_id],
            tenant_id=TENANT,
            instance_id=instance.instance_id,
            flow_kind="refresh",
        )

    async def get_run(self, run_id: str) -> run_pb2.Run:
        """Return a run as it is."""
        run: run_pb2.Run = await self._call(self.runs.GetRun, run_service_pb2.GetRunRequest(run_id=run_id))
        return run

    async def list_runs(self, instance_id: str = "", statuses: Collection[Any] = ()) -> list[run_pb2.Run]:
        """Return the runs of an instance, or of all, newest first."""
        request = run_service_pb2.ListRunsRequest(instance_id=instance_id, statuses=statuses, page_size=1000)
        answer = await self._call(self.runs.ListRuns, request)
        return list(answer.runs)

    async def wait_for_strike(self) -> None:
        """Wait until the gate has struck."""
        async with asyncio.timeout(_DEADLINE):
            await self.gate.struck.wait()

    async def wait_for_ends(self) -> None:
        """Wait until no run is active and no flow run goes on in Prefect."""

        async def have_ended() -> bool:
            return not await self.list_runs(statuses=ACTIVE) and not await self._list_going_on()

        try:
            await eventually(have_ended, _DEADLINE)
        except AssertionError as error:
            runs = [str(run) for run in await self.list_runs(statuses=ACTIVE)]
            going_on = [
                (each["id"], each["state_type"], each["parameters"]) for each in await self._list_going_on()
            ]
            raise AssertionError(f"these go on: {runs}, {going_on}") from error

    async def wait_for_runs(self, instance: instance_pb2.Instance, count: int) -> None:
        """Wait until an instance has had this many runs, refused ones included."""

        async def are_there() -> bool:
            return len(await self.list_runs(instance.instance_id)) >= count

        await eventually(are_there, _DEADLINE, f"{instance.name} has fewer than {count} runs")

    async def _list_going_on(self) -> list[Any]:
        found = await self.prefect.call(
            "POST",
            "/flow_runs/filter",
            {
                "deployments": {"id": {"any_": list(self.deployments.values())}},
                "flow_runs": {"state": {"type": {"not_any_": sorted(FINAL)}}},
            },
        )
        return list(found)

    async def end_in_prefect(self, run: run_pb2.Run, ends: Collection[str]) -> str:
        """Return the end of the run's flow run once it is one of these, or what it is after a while.

        A killed flow run is CRASHED for Prefect, and may for a second become RUNNING again, before run-service sets its end.
        """

        async def state() -> str:
            return str((await self.prefect.state(run.orchestrator_run_id))["type"])

        async def has_ended() -> bool:
            return await state() in ends

        with contextlib.suppress(AssertionError):
            await eventually(has_ended)
        return await state()

    async def _call(self, method: Callable[..., Any], request: Any) -> Any:
        async def attempt() -> Any:
            try:
                return await method(request, wait_for_ready=True, timeout=10)
            except grpc.aio.AioRpcError as error:
                if error.code() in {grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED}:
                    return None
                raise

        return await eventually(attempt, _DEADLINE)


@asynccontextmanager
async def kill_world(
    urls: dict[str, Any], nats_url: str, prefect_url: str, prefect: PrefectApi, folder: Path
) -> AsyncIterator[KillWorld]:
    """Start all; end all."""
    peers, instances = _make_peers(urls)
    await peers.start()
    address, base = f"127.0.0.1:{ports.find_free()}", f"pool-{folder.name}"
    pool = work_pool_of(base, TENANT)
    paths = os.pathsep.join(
        [str(Path(__file__).parents[1]), str(REGISTERED), *filter(None, [os.environ.get("PYTHONPATH")])]
    )
    await _add_streams(nats_url)
    await prefect.call("POST", "/work_pools/", {"name": pool, "type": "optaic-warm"})
    common = {
        "PYTHONPATH": paths,
        "OPTAIC_PREFECT_API_URL": prefect_url,
        "OPTAIC_INSTANCE_ADDRESS": peers.address,
    }
    service = KillableProgram(
        ["-m", "run_service"],
        {
            **common,
            **_SHORT,
            **{f"OPTAIC_{name.upper()}": str(url) for name, url in urls.items()},
            "OPTAIC_LISTEN": address,
            "OPTAIC_NATS_URL": nats_url,
            "OPTAIC_SERVICE_TOKEN": SERVICE_TOKEN,
            "OPTAIC_TOKENS_FILE": str(tokens_file()),
            "OPTAIC_LINEAGE_ADDRESS": peers.address,
        },
        folder / "run-service.log",
    )
    async with MomentGate() as gate, grpc.aio.insecure_channel(address) as channel:
        worker = KillableProgram(
            ["-m", "support.worker_with_moments"],
            {
                **common,
                "OPTAIC_RUN_ADDRESS": address,
                "OPTAIC_DATA_ROOT": str(folder / "data"),
                "OPTAIC_WORK_POOL": base,
                "OPTAIC_TENANTS": json.dumps([TENANT]),
                "OPTAIC_EXECUTOR_TOKEN": token_of("executor", TENANT),
                "OPTAIC_WORKER_GRACE_SECONDS": "0",
                "OPTAIC_POLL_SECONDS": "2",  # it hears of dispatched runs at once
                "PREFECT_HOME": str(folder / "prefect-home"),
                PORT: str(gate.port),
                "OPTAIC_CHILD_ENVIRONMENT": json.dumps([PORT]),
                "OPTAIC_CHILD_ISOLATION": "none",  # the child says who it is, to be killed from outside
            },
            folder / "worker.log",
        )
        world = KillWorld(instances, prefect, pool, gate, service, worker, RunServiceStub(channel))
        try:
            service.start()
            worker.start()
            yield world
        finally:
            worker.end()
            service.end()
            await peers.stop()


async def _add_streams(nats_url: str) -> None:
    """Create the streams of the services that do not run."""
    client = await nats.connect(nats_url)
    await ensure_streams(client, "INSTANCE_EVENTS", "LINEAGE_EVENTS")
    await client.close()


def _make_peers(urls: dict[str, Any]) -> tuple[Server, Instances]:
    instances, definitions, lineage = Instances(), Definitions(), Lineage()  # type: ignore[abstract] # at run time a missing method is unimplemented
    settings = ServiceSettings.model_validate(
        {
            **urls,
            "service_token": SERVICE_TOKEN,
            "tokens_file": tokens_file(),
            "shutdown_grace_seconds": 0.1,
            "listen": "127.0.0.1:0",
        }
    )
    servicers: list[Any] = [
        (
            instance_service_pb2_grpc.add_InstanceServiceServicer_to_server,
            instances,
            "optaic.instance.v1.InstanceService",
        ),
        (
            definition_service_pb2_grpc.add_DefinitionServiceServicer_to_server,
            definitions,
            "optaic.definition.v1.DefinitionService",
        ),
        (
            lineage_service_pb2_grpc.add_LineageServiceServicer_to_server,
            lineage,
            "optaic.lineage.v1.LineageService",
        ),
    ]
    return Server(settings, "peers", "optaic.test", servicers, make_authenticator(settings)), instances
