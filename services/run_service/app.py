"""Connect the parts of run-service; decide nothing."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any

from optaic.rules.events import RUN_EVENTS, STREAMS
from optaic.run.v1.data_move_service_pb2_grpc import add_DataMoveServiceServicer_to_server
from optaic.run.v1.run_report_service_pb2_grpc import add_RunReportServiceServicer_to_server
from optaic.run.v1.run_service_pb2_grpc import add_RunServiceServicer_to_server
from run_service.centrifugo_adapter import LiveRuns
from run_service.comparing import Comparing
from run_service.config import Settings
from run_service.consumers import build_consumers
from run_service.grpc_api import DataMoveServicer, RunReportServicer, RunServicer
from run_service.peers_adapter import Peers
from run_service.ports import Orchestrator
from run_service.prefect_adapter import PrefectOrchestrator
from run_service.reconcile.dispatching import Dispatcher
from run_service.reconcile.due_work import due_auto_refreshes, due_refreshes, due_retries, due_ticks
from run_service.reconcile.ending import Ender
from run_service.reconcile.leases import LeaseKeeper
from run_service.reconcile.observing import Observer
from run_service.reconcile.purging import RefreshPurge
from run_service.reconcile.sweeping import Sweeper
from run_service.use_cases import reading
from run_service.use_cases.dependencies import Dependencies
from run_service.use_cases.log_tails import LogTails
from run_service.use_cases.room import Room
from run_service.use_cases.watching import Watches
from servicekit import app, client
from servicekit.app import App
from servicekit.centrifugo_adapter import CentrifugoPublisher
from servicekit.clock import Clock
from servicekit.loop import Loop
from servicekit.outlet import Outlet
from servicekit.parts import make_parts
from servicekit.server import Check

NAME = "run-service"
_PURGE_SECONDS = 600.0


async def build(
    settings: Settings, orchestrator: Orchestrator | None = None, *, clock: Clock | None = None
) -> App[Dependencies]:
    """Build the service without starting it; tests give their own orchestrator and clock.

    Raises:
        UnavailableError: The database does not answer.
    """
    parts = await make_parts(NAME, settings, {RUN_EVENTS: STREAMS[RUN_EVENTS]}, clock=clock)
    channels = [
        client.connect(address, token_source=lambda: settings.service_token, tls=settings.client_tls(address))
        for address in (settings.instance_address, settings.lineage_address)
    ]
    close: list[Callable[[], Awaitable[None]]] = [channel.close for channel in channels]
    if orchestrator is None:
        orchestrator = prefect = PrefectOrchestrator(settings)
        close.append(prefect.close)
    watches = Watches(parts.database, settings)
    tails = LogTails(parts.database, orchestrator, watches, settings, parts.clock)
    room = Room(parts.database, settings.limit_of_tenant(settings.tenant_active_runs))
    deps = Dependencies(
        parts.database, parts.clock, parts.ids, parts.signer, settings, Peers(*channels), watches, tails, room
    )
    Comparing(deps, parts.comparison).listen()
    dispatcher = Loop("dispatches", settings.dispatch_interval_seconds, Dispatcher(deps, orchestrator).step)
    ender = Loop("endings", settings.dispatch_interval_seconds, Ender(deps, orchestrator).step)
    ticker = Loop("ticks", settings.tick_interval_seconds, due_ticks(deps).step)
    refresher = Loop("refreshes", settings.refresh_interval_seconds, due_refreshes(deps).step)
    follower = Loop("auto_refreshes", settings.auto_refresh_interval_seconds, due_auto_refreshes(deps).step)
    deps.wake_dispatcher, deps.wake_ender = dispatcher.wake, ender.wake
    deps.wake_ticker, deps.wake_refresher, deps.wake_follower = ticker.wake, refresher.wake, follower.wake
    observed: dict[str, Check] = {"prefect": orchestrator.ping}
    background: dict[str, Callable[[], Coroutine[Any, Any, None]]] = {}
    if settings.centrifugo_url:
        centrifugo = CentrifugoPublisher(settings)
        outlet = Outlet(centrifugo, settings.centrifugo_buffer)
        parts.relay.on_published(LiveRuns(outlet).put)
        observed["centrifugo"] = outlet.check
        background["centrifugo"] = outlet.run
        close += [outlet.close, centrifugo.close]
    return parts.assemble(
        deps,
        [
            (add_RunServiceServicer_to_server, RunServicer(deps), "optaic.run.v1.RunService"),
            (
                add_RunReportServiceServicer_to_server,
                RunReportServicer(deps),
                "optaic.run.v1.RunReportService",
            ),
            (add_DataMoveServiceServicer_to_server, DataMoveServicer(deps), "optaic.run.v1.DataMoveService"),
        ],
        build_consumers(deps, parts.broker),
        # A read sees this service's own writes at once. Admission sends lineage-service the events that it may lack.
        locate=lambda tenant_id, ids: reading.locate(deps, tenant_id, ids),
        observed=observed,
        background=background,
        loops=[
            dispatcher,
            ender,
            Loop("observation", settings.dispatch_interval_seconds, Observer(deps, orchestrator).step),
            Loop("sweep", settings.sweep_interval_seconds, Sweeper(deps, orchestrator).step),
            Loop("leases", settings.lease_interval_seconds, LeaseKeeper(deps).step),
            Loop("retries", settings.retry_interval_seconds, due_retries(deps).step),
            ticker,
            refresher,
            Loop("ended refreshes", _PURGE_SECONDS, RefreshPurge(deps).step),
            follower,
            Loop("watches", settings.watch_poll_seconds, watches.look),
        ],
        close=close,
    )


async def main(stop: asyncio.Event) -> None:
    """Run the service until `stop` is set."""
    settings = Settings()
    await app.start(stop, NAME, settings, lambda: build(settings))
