"""A world for workers: what they talk to, in process behind a real channel; and worker processes."""

from __future__ import annotations

import asyncio
import contextlib
import datetime as dt
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from optaic.common.v1 import flow_pb2
from optaic.definition.v1 import definition_service_pb2_grpc
from optaic.instance.v1 import instance_pb2, instance_service_pb2_grpc, spec_pb2
from optaic.run.v1 import (
    run_pb2,
    run_report_service_pb2_grpc,
    run_service_pb2_grpc,
)
from servicekit.auth import make_authenticator
from servicekit.enums import enum_word
from servicekit.ids import new_id
from servicekit.server import Server
from servicekit.settings import ServiceSettings
from support.guardians import Guardians
from support.identities import tokens_file
from support.panels import CONFIG
from support.plugin_packages import REGISTERED
from support.sources import FOLDERS
from support.worker_peers import (
    MACRO_IDS,
    TENANT,
    TOKEN,
    VERSION_IDS,
    Definitions,
    Instances,
    RunReads,
    Runs,
    fill_composition,
)
from worker.config import Settings
from worker.execution import Ending, execute_run
from worker.ticket import Ticket

_SYMBOLS = ["AAPL", "AMD", "BAC", "BBY", "CVX", "GE"]


class World:
    """Both services on one port; they can be away for a while."""

    def __init__(self) -> None:
        self.guardians = Guardians()
        self.instances = Instances()
        self.definitions = Definitions()
        self.runs = Runs(self.instances)
        self.address = ""
        self._server: Server | None = None

    async def start(self) -> None:
        """Serve, on the same port each time."""
        settings = ServiceSettings(
            database_url="unused",
            database_owner_url="unused",
            database_infra_url="unused",
            listen=self.address or "127.0.0.1:0",
            tokens_file=tokens_file(),
            shutdown_grace_seconds=0,
        )
        servicers: list[Any] = [
            (
                instance_service_pb2_grpc.add_InstanceServiceServicer_to_server,
                self.instances,
                "optaic.instance.v1.InstanceService",
            ),
            (
                definition_service_pb2_grpc.add_DefinitionServiceServicer_to_server,
                self.definitions,
                "optaic.definition.v1.DefinitionService",
            ),
            (
                run_report_service_pb2_grpc.add_RunReportServiceServicer_to_server,
                self.runs,
                "optaic.run.v1.RunReportService",
            ),
            (
                run_service_pb2_grpc.add_RunServiceServicer_to_server,
                RunReads(self.runs),  # type: ignore[abstract] # at run time a missing method is unimplemented
                "optaic.run.v1.RunService",
            ),
        ]
        self._server = Server(settings, "world", "optaic.test", servicers, make_authenticator(settings))
        await self._server.start()
        self.address = self._server.address

    async def stop(self) -> None:
        """Be away."""
        if self._server is not None:
            await self._server.stop()

    def settings(self, data_root: Path | str, **changes: Any) -> Settings:
        """Return a worker's settings for this world."""
        values: dict[str, Any] = {
            "instance_address": self.address,
            "run_address": self.address,
            "executor_token": TOKEN,
            "data_root": str(data_root),
            "run_output_folder": f"{urlsplit(str(data_root)).path}/run-output",
            "telemetry_folder": f"{urlsplit(str(data_root)).path}/telemetry",
            "mlflow_url": "http://127.0.0.1:9",  # where nothing listens
            "evidently_workspace": f"{urlsplit(str(data_root)).path}/evidently",  # which is not there
            "start_patience_seconds": 5,
            "report_patience_seconds": 20,
            "source_roots": FOLDERS,
            "tenants": (TENANT,),
            "child_isolation": "none",  # plugins of most tests tell by files of the test what they did
        }
        return Settings(**{**values, **changes})

    async def execute(self, run: run_pb2.Run, data_root: Path | str, **changes: Any) -> Ending:
        """Execute a run to its end, as a worker with these settings does."""
        return await execute_run(make_ticket(run), self.settings(data_root, **changes), self.guardians.start)

    def dataset(
        self, name: str = "prices", definition: str = "sp500_prices", *, store: str = "delta", **config: Any
    ) -> Any:
        """Return a dataset."""
        instance = instance_pb2.Instance(name=name, kind=instance_pb2.INSTANCE_KIND_DATASET)
        if definition == "sp500_prices":
            config = {"symbols": _SYMBOLS, "start": "2018-01-02", "as_of": "2021-12-31", **config}
        fill_composition(instance.dataset, definition, config, store)
        return self.instances.put(instance)

    def signal(self, expression: str = "ZSCORE(REF(close, 21) / REF(close, 252) - 1)", *macros: str) -> Any:
        """Return a signal within [-1.5, 1.5]; its expression calls these macros and operators."""
        instance = instance_pb2.Instance(name="momentum", kind=instance_pb2.INSTANCE_KIND_SIGNAL)
        fill_composition(instance.signal.dataset, "expression", {"expression": expression})
        pinned = {name: (MACRO_IDS | VERSION_IDS)[name] for name in macros}
        instance.signal.dataset.pipeline.macro_version_ids.update(pinned)
        instance.signal.contract.min_value, instance.signal.contract.max_value = -1.5, 1.5
        instance.signal.contract.bounds_policy = spec_pb2.SignalContract.BOUNDS_POLICY_WINSORIZE
        return self.instances.put(instance)

    def experiment(self, definition: str = "MOMENTUM", *macros: str, **config: Any) -> Any:
        """Return a preview of an operator or macro; its arguments call these macros and operators."""
        instance = instance_pb2.Instance(name="experiment", kind=instance_pb2.INSTANCE_KIND_EXPERIMENT)
        instance.experiment.SetInParent()
        known = MACRO_IDS | VERSION_IDS
        instance.definition_name, instance.definition_version_id = definition, known[definition]
        instance.config.update(config or {"x": "close", "long": 252, "short": 21})
        instance.macro_version_ids.update({name: known[name] for name in macros})
        return self.instances.put(instance)

    def model(self, definition: str = "ridge", **config: Any) -> Any:
        """Return a model with two features of the upstream `prices`."""
        instance = instance_pb2.Instance(name="model", kind=instance_pb2.INSTANCE_KIND_MODEL)
        instance.model.SetInParent()
        instance.definition_name, instance.definition_version_id = definition, VERSION_IDS[definition]
        instance.config.update({**CONFIG, **config})
        return self.instances.put(instance)

    def backtest(self, signal: Any) -> Any:
        """Return the smallest backtest."""
        instance = instance_pb2.Instance(name="backtest", kind=instance_pb2.INSTANCE_KIND_BACKTEST)
        instance.backtest.signals.primary = signal.instance_id
        instance.backtest.date_range.start = "2020-01-02"
        instance.backtest.config.top_n = 2
        return self.instances.put(instance)

    def optimizer(
        self, signals: Sequence[Any], prices: Any, definition: str = "minimum_cvar", **config: Any
    ) -> Any:
        """Return an optimizer of signals, whose returns come from prices."""
        instance = instance_pb2.Instance(name="mvo", kind=instance_pb2.INSTANCE_KIND_PORTFOLIO_OPTIMIZER)
        instance.portfolio_optimizer.SetInParent()
        instance.definition_name, instance.definition_version_id = definition, VERSION_IDS[definition]
        instance.config.update(config)
        for each in signals:
            instance.upstream_refs.add(resource_id=each.instance_id, role="signal")
        instance.upstream_refs.add(resource_id=prices.instance_id, role="covariance")
        return self.instances.put(instance)


def make_ticket(run: run_pb2.Run, *, run_id: str | None = None) -> Ticket:
    """Return what Prefect would hand over."""
    return Ticket(
        tenant_id=TENANT,
        instance_id=run.instance_id,
        flow_kind=enum_word(flow_pb2.FlowKind, run.flow_kind),
        run_id=run.run_id if run_id is None else run_id,
        orchestrator_run_id=new_id(),
        scheduled_time=dt.datetime(2026, 1, 2, 16, 30, tzinfo=dt.UTC),
        executor="test:1",
    )


@asynccontextmanager
async def running_world() -> AsyncIterator[World]:
    """Serve until the block ends."""
    world = World()
    await world.start()
    try:
        yield world
    finally:
        await world.stop()
        await asyncio.wait_for(world.guardians.wait(), 30)


@contextmanager
def running_process(
    arguments: list[str], environment: Mapping[str, str], log: Path
) -> Iterator[subprocess.Popen[bytes]]:
    """Run a Python process in its own group; end everything in the group."""
    log.parent.mkdir(parents=True, exist_ok=True)
    path = [str(Path(__file__).parents[1]), str(REGISTERED), *filter(None, [os.environ.get("PYTHONPATH")])]
    with log.open("ab") as output:
        process = subprocess.Popen(
            [sys.executable, *arguments],
            env={**os.environ, "PYTHONPATH": os.pathsep.join(path), **environment},
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    try:
        yield process
    finally:
        process.terminate()
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(15)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait(5)
