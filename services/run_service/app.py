"""Connect the parts of run-service; decide nothing."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any

from optaic.rules.events import RUN_EVENTS, STREAMS
from optaic.run.v1 import run_report_service_pb2_grpc, run_service_pb2_grpc
from run_service.comparing import Comparing
from run_service.config import Settings
from run_service.consumers import build_consumers
from run_service.grpc_api import RunReportServicer, RunServicer
from run_service.peers_adapter import Peers
from run_service.ports import Orchestrator
from run_service.prefect_adapter import PrefectOrchestrator
from run_service.reconcile.dispatching import Dispatcher
from run_service.reconcile.due_work import due_retries, due_ticks
from run_service.reconcile.ending import Ender
from run_service.reconcile.leases import LeaseKeeper
from run_service.reconcile.observing import Observer
from run_service.reconcile.sweeping import Sweeper
from run_service.use_cases.dependencies import Dependencies
from run_service.use_cases.watching import Watches
from servicekit import app, client
from servicekit.admission import Admission
from servicekit.app import App
from servicekit.audit.trail import AuditTrail
from servicekit.auth import make_authenticator
from servicekit.bindings import RoleBindings
from servicekit.broker import Broker
from servicekit.clock import Clock, SystemClock
from servicekit.comparison import Comparison
from servicekit.database import Database
from servicekit.ids import new_id
from servicekit.loop import Loop
from servicekit.relay import Relay
from servicekit.server import Server
from servicekit.signing import load_signer
from servicekit.tokens import ReadTokens

NAME = "run-service"


async def build(
    settings: Settings, *, clock: Clock | None = None, orchestrator: Orchestrator | None = None
) -> App[Dependencies]:
    """Connect the parts of the service; tests give their own clock and orchestrator."""
    database = Database(settings)
    broker = Broker(settings, {RUN_EVENTS: STREAMS[RUN_EVENTS]}, NAME)
    channels = [
        client.connect(address, token_source=lambda: settings.service_token, tls=settings.client_tls(address))
        for address in (settings.instance_address, settings.lineage_address)
    ]
    watches = Watches(database, settings)
    deps = Dependencies(
        settings=settings,
        database=database,
        peers=Peers(*channels),
        watches=watches,
        clock=clock or SystemClock(),
        ids=new_id,
        signer=await load_signer(database),
    )
    trail = AuditTrail(database, deps.signer, deps.clock)
    close: list[Callable[[], Awaitable[None]]] = [
        trail.denials.close,
        broker.close,
        database.close,
        *(channel.close for channel in channels),
    ]
    if orchestrator is None:
        orchestrator = prefect = PrefectOrchestrator(settings)
        close.append(prefect.close)
    dispatcher = Loop("dispatches", settings.dispatch_interval_seconds, Dispatcher(deps, orchestrator).step)
    ender = Loop("endings", settings.dispatch_interval_seconds, Ender(deps, orchestrator).step)
    deps.wake_dispatcher, deps.wake_ender = dispatcher.wake, ender.wake
    loops = [
        dispatcher,
        ender,
        Loop("observation", settings.dispatch_interval_seconds, Observer(deps, orchestrator).step),
        Loop("sweep", settings.sweep_interval_seconds, Sweeper(deps, orchestrator).step),
        Loop("leases", settings.lease_interval_seconds, LeaseKeeper(deps).step),
        Loop("retries", settings.retry_interval_seconds, due_retries(deps).step),
        Loop("ticks", settings.tick_interval_seconds, due_ticks(deps).step),
        Loop("watches", settings.watch_poll_seconds, watches.look),
    ]
    Comparing(deps, Comparison(broker, NAME, settings.comparison_grace_seconds)).listen()
    server = Server(
        settings,
        NAME,
        "run.optaic",
        [
            (
                run_service_pb2_grpc.add_RunServiceServicer_to_server,
                RunServicer(deps),
                "optaic.run.v1.RunService",
            ),
            (
                run_report_service_pb2_grpc.add_RunReportServiceServicer_to_server,
                RunReportServicer(deps),
                "optaic.run.v1.RunReportService",
            ),
        ],
        Admission(make_authenticator(settings), RoleBindings(database)),
        # A read sees this service's own writes at once. Admission sends lineage-service the events that it may lack.
        ReadTokens(database, {}),
        dependencies={"postgres": database.ping},
        observed={"nats": broker.ping, "prefect": orchestrator.ping},
        trail=trail,
    )
    background: dict[str, Callable[[], Coroutine[Any, Any, None]]] = {
        "relay": Relay(database, broker).run,
        **trail.background,
        **{consumer.name: consumer.run for consumer in build_consumers(deps, broker)},
        **{loop.name: loop.run for loop in loops},
    }
    return App(deps, server, background, open=[database.open, broker.connect], close=close)


async def main(stop: asyncio.Event) -> None:
    """Run until `stop` is set."""
    settings = Settings()
    await app.start(stop, NAME, settings, lambda: build(settings))
