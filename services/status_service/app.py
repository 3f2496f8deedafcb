"""The composition root of status-service: wiring only."""

from __future__ import annotations

import asyncio

from optaic.rules.events import STATUS_EVENTS, STREAMS
from optaic.status.v1.status_service_pb2_grpc import add_StatusServiceServicer_to_server
from servicekit import app
from servicekit.admission import Admission
from servicekit.app import App
from servicekit.audit.trail import AuditTrail
from servicekit.auth import make_authenticator
from servicekit.bindings import RoleBindings
from servicekit.broker import Broker
from servicekit.clock import SystemClock
from servicekit.comparison import Comparison
from servicekit.database import Database
from servicekit.ids import new_id
from servicekit.loop import Loop
from servicekit.relay import Relay
from servicekit.server import Server
from servicekit.signing import load_signer
from servicekit.tokens import ReadTokens
from status_service import consumers
from status_service.centrifugo_adapter import CentrifugoStatusPublisher
from status_service.comparing import Comparing
from status_service.config import Settings
from status_service.grpc_api import StatusServicer
from status_service.nats_adapter import NatsStatusPublisher
from status_service.ports import StatusPublisher
from status_service.reconcile import Compaction
from status_service.use_cases import reading
from status_service.use_cases.dependencies import Dependencies
from status_service.use_cases.facts import LINEAGE_ECHO
from status_service.use_cases.watching import ChangeFeed

NAME = "status-service"
# A run, or an instance's edges, count as seen once lineage-service's view of them has arrived.
_READ_RULES = {
    "instance": (consumers.INSTANCE_CONSUMER, LINEAGE_ECHO),
    "run": (LINEAGE_ECHO,),
    "lineage": (consumers.LINEAGE_CONSUMER,),
}


async def build(settings: Settings) -> App[Dependencies]:
    """Build the service from its settings and its signing key; the broker is connected when the App opens."""
    database = Database(settings)
    broker = Broker(settings, {STATUS_EVENTS: STREAMS[STATUS_EVENTS]}, NAME)
    feed = ChangeFeed(
        database,
        poll_seconds=settings.watch_poll_seconds,
        buffer_size=settings.watch_buffer,
        bookmark_seconds=settings.watch_bookmark_seconds,
    )
    deps = Dependencies(database, feed, SystemClock(), new_id, await load_signer(database))
    trail = AuditTrail(database, deps.signer, deps.clock)
    publishers: list[StatusPublisher] = [NatsStatusPublisher(broker)]
    close = [trail.denials.close, broker.close, database.close]
    if settings.centrifugo_url:
        centrifugo = CentrifugoStatusPublisher(
            settings.centrifugo_url, settings.centrifugo_api_key, settings.centrifugo_timeout_seconds
        )
        publishers.append(centrifugo)
        close.insert(0, centrifugo.close)
    live = consumers.LiveStatuses(publishers, settings.live_buffer)
    Comparing(deps, Comparison(broker, NAME, settings.comparison_grace_seconds)).listen()
    compaction = Compaction(database, settings.watch_retention_revisions)
    server = Server(
        settings,
        NAME,
        "status.optaic",
        [(add_StatusServiceServicer_to_server, StatusServicer(deps), "optaic.status.v1.StatusService")],
        Admission(
            make_authenticator(settings),
            RoleBindings(database),
            lambda tenant_id, ids: reading.locate(deps, tenant_id, ids),
        ),
        ReadTokens(database, _READ_RULES),
        dependencies={"postgres": database.ping},
        observed={"nats": broker.ping},
        trail=trail,
    )
    background = {
        "relay": Relay(database, broker).run,
        **trail.background,
        **{consumer.name: consumer.run for consumer in consumers.build_consumers(deps, broker, live)},
        "live": live.run,
        "compaction": Loop("compaction", settings.compaction_interval_seconds, compaction.step).run,
    }
    return App(deps, server, background, open=[database.open, broker.connect], close=close)


async def main(stop: asyncio.Event) -> None:
    """Run until `stop` is set."""
    settings = Settings()
    await app.start(stop, NAME, settings, lambda: build(settings))
