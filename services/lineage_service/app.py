"""The composition root of lineage-service: it creates all parts and connects them."""

from __future__ import annotations

import asyncio

from lineage_service.comparing import Comparing
from lineage_service.config import Settings
from lineage_service.consumers import INSTANCE_CONSUMER, build_consumers
from lineage_service.grpc_api import LineageServicer
from lineage_service.use_cases.admission import RUN_CONSUMER
from lineage_service.use_cases.dependencies import Dependencies
from optaic.lineage.v1 import lineage_service_pb2_grpc
from optaic.rules.events import LINEAGE_EVENTS, STREAMS
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
from servicekit.relay import Relay
from servicekit.server import Server
from servicekit.signing import load_signer
from servicekit.tokens import ReadTokens

NAME = "lineage-service"


async def build(settings: Settings) -> App[Dependencies]:
    """Build the service from its settings and its signing key; the broker is connected when the App opens."""
    database = Database(settings)
    broker = Broker(settings, {LINEAGE_EVENTS: STREAMS[LINEAGE_EVENTS]}, NAME)
    deps = Dependencies(database, SystemClock(), new_id, await load_signer(database))
    trail = AuditTrail(database, deps.signer, deps.clock)
    Comparing(deps, Comparison(broker, NAME, settings.comparison_grace_seconds)).listen()
    server = Server(
        settings,
        NAME,
        "lineage.optaic",
        [
            (
                lineage_service_pb2_grpc.add_LineageServiceServicer_to_server,
                LineageServicer(deps),
                "optaic.lineage.v1.LineageService",
            )
        ],
        Admission(make_authenticator(settings), RoleBindings(database)),
        ReadTokens(database, {"instance": (INSTANCE_CONSUMER,), "run": (RUN_CONSUMER,)}),
        dependencies={"postgres": database.ping},
        observed={"nats": broker.ping},
        trail=trail,
    )
    background = {
        "relay": Relay(database, broker).run,
        **trail.background,
        **{consumer.name: consumer.run for consumer in build_consumers(deps, broker)},
    }
    return App(
        deps,
        server,
        background,
        open=[database.open, broker.connect],
        close=[trail.denials.close, broker.close, database.close],
    )


async def main(stop: asyncio.Event) -> None:
    """Run lineage-service until `stop` is set."""
    settings = Settings()
    await app.start(stop, NAME, settings, lambda: build(settings))
