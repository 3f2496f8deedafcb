"""Connect the parts of status-service; decide nothing."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from datetime import timedelta
from typing import Any

from optaic.rules.events import STATUS_EVENTS, STREAMS
from optaic.status.v1.status_service_pb2_grpc import add_StatusServiceServicer_to_server
from servicekit import app
from servicekit.app import App
from servicekit.centrifugo_adapter import CentrifugoPublisher
from servicekit.loop import Loop
from servicekit.outlet import Outlet
from servicekit.parts import make_parts
from servicekit.server import Check
from status_service.centrifugo_adapter import CentrifugoStatusPublisher
from status_service.comparing import Comparing
from status_service.config import Settings
from status_service.consumers import INSTANCE_CONSUMER, LINEAGE_CONSUMER, LiveStatuses, build_consumers
from status_service.grpc_api import StatusServicer
from status_service.nats_adapter import NatsStatusPublisher
from status_service.ports import StatusPublisher
from status_service.reconcile import Compaction, Trimming
from status_service.store.statuses import SharedReads
from status_service.use_cases import reading
from status_service.use_cases.dependencies import Dependencies, RealtimeTokens
from status_service.use_cases.facts import LINEAGE_ECHO
from status_service.use_cases.watching import ChangeFeed

NAME = "status-service"


async def build(settings: Settings) -> App[Dependencies]:
    """Build the service without starting it.

    Raises:
        UnavailableError: The database does not answer.
    """
    parts = await make_parts(NAME, settings, {STATUS_EVENTS: STREAMS[STATUS_EVENTS]})
    feed = ChangeFeed(
        parts.database,
        poll_seconds=settings.watch_poll_seconds,
        buffer_size=settings.watch_buffer,
        bookmark_seconds=settings.watch_bookmark_seconds,
    )
    kept_history = timedelta(days=settings.status_history_days)
    deps = Dependencies(
        parts.database,
        parts.clock,
        parts.ids,
        parts.signer,
        feed,
        SharedReads(parts.database),
        kept_history,
        RealtimeTokens(
            settings.centrifugo_token_key,
            timedelta(seconds=settings.realtime_token_seconds),
            settings.tenants,
        ),
    )
    Comparing(deps, parts.comparison).listen()
    publishers: list[StatusPublisher] = [NatsStatusPublisher(parts.broker)]
    close = []
    observed: dict[str, Check] = {}
    background: dict[str, Callable[[], Coroutine[Any, Any, None]]] = {}
    if settings.centrifugo_url:
        centrifugo = CentrifugoPublisher(settings)
        outlet = Outlet(centrifugo, settings.centrifugo_buffer)
        publishers.append(CentrifugoStatusPublisher(outlet, settings.tenants))
        observed["centrifugo"] = outlet.check
        background["centrifugo"] = outlet.run
        close += [outlet.close, centrifugo.close]
    live = LiveStatuses(publishers, settings.live_buffer)
    compaction = Compaction(parts.database, settings.watch_retention_revisions)
    trimming = Trimming(parts.database, parts.clock, kept_history)
    return parts.assemble(
        deps,
        [(add_StatusServiceServicer_to_server, StatusServicer(deps), "optaic.status.v1.StatusService")],
        build_consumers(deps, parts.broker, live),
        # A run, or an instance's edges, count as seen once lineage-service's view of them has arrived.
        read_rules={
            "instance": (INSTANCE_CONSUMER, LINEAGE_ECHO),
            "run": (LINEAGE_ECHO,),
            "lineage": (LINEAGE_CONSUMER,),
        },
        locate=lambda tenant_id, ids: reading.locate(deps, tenant_id, ids),
        loops=[
            Loop("compaction", settings.compaction_interval_seconds, compaction.step),
            Loop("trimming", settings.compaction_interval_seconds, trimming.step),
        ],
        observed=observed,
        background={"live": live.run, **background},
        close=close,
    )


async def main(stop: asyncio.Event) -> None:
    """Run the service until `stop` is set."""
    settings = Settings()
    await app.start(stop, NAME, settings, lambda: build(settings))
