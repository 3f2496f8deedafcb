"""Connect the parts of lineage-service; decide nothing."""

from __future__ import annotations

import asyncio
from datetime import timedelta

from lineage_service.calendars_adapter import ExchangeCalendars
from lineage_service.comparing import Comparing
from lineage_service.config import Settings
from lineage_service.consumers import INSTANCE_CONSUMER, build_consumers
from lineage_service.grpc_api import LineageServicer
from lineage_service.ports import Calendars
from lineage_service.reconcile.pruning import Pruner
from lineage_service.reconcile.recomputing import PAUSE, Recomputer
from lineage_service.reconcile.sweeping import Sweeper
from lineage_service.use_cases import reading
from lineage_service.use_cases.admission import RUN_CONSUMER
from lineage_service.use_cases.dependencies import Dependencies
from optaic.lineage.v1.lineage_service_pb2_grpc import add_LineageServiceServicer_to_server
from optaic.rules.events import LINEAGE_EVENTS, STREAMS
from servicekit import app
from servicekit.app import App
from servicekit.clock import Clock
from servicekit.loop import Loop
from servicekit.parts import make_parts

NAME = "lineage-service"
_PRUNING_SECONDS = 600.0


async def build(
    settings: Settings, *, clock: Clock | None = None, calendars: Calendars | None = None
) -> App[Dependencies]:
    """Build the service without starting it; tests give their own clock and calendars.

    Raises:
        UnavailableError: The database does not answer.
    """
    parts = await make_parts(NAME, settings, {LINEAGE_EVENTS: STREAMS[LINEAGE_EVENTS]}, clock=clock)
    deps = Dependencies(
        parts.database, parts.clock, parts.ids, parts.signer, calendars or ExchangeCalendars()
    )
    Comparing(deps, parts.comparison).listen()
    loops = [
        Loop("freshness", settings.freshness_interval_seconds, Sweeper(deps).step),
        Loop("history", _PRUNING_SECONDS, Pruner(deps, timedelta(settings.lineage_history_days)).step),
    ]
    if settings.recomputation_interval_seconds:
        recomputer = Recomputer(deps, settings.recomputation_interval_seconds)
        loops.append(Loop("recomputation", PAUSE, recomputer.step))
    return parts.assemble(
        deps,
        [(add_LineageServiceServicer_to_server, LineageServicer(deps), "optaic.lineage.v1.LineageService")],
        build_consumers(deps, parts.broker),
        locate=lambda tenant_id, ids: reading.locate(deps, tenant_id, ids),
        loops=loops,
        read_rules={"instance": (INSTANCE_CONSUMER,), "run": (RUN_CONSUMER,)},
    )


async def main(stop: asyncio.Event) -> None:
    """Run the service until `stop` is set."""
    settings = Settings()
    await app.start(stop, NAME, settings, lambda: build(settings))
