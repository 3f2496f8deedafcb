"""The composition root: builds the service and runs it; holds no rule."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from lineage_service import consumers, events
from lineage_service.config import Settings
from lineage_service.grpc_api import LineageApi
from lineage_service.use_cases.events import Services
from optaic.lineage.v1 import lineage_service_pb2_grpc
from servicekit import logging, migrations, runtime
from servicekit.auth import Authenticator
from servicekit.broker import Broker
from servicekit.clock import SystemClock
from servicekit.comparison import Comparison
from servicekit.consumer import Consumer
from servicekit.database import Database
from servicekit.ids import new_id
from servicekit.relay import Relay
from servicekit.server import Server
from servicekit.tokens import ReadTokens


@dataclass(frozen=True)
class App:
    """The wired parts, before anything runs."""

    server: Server
    database: Database
    broker: Broker
    background: Mapping[str, Callable[[], Coroutine[Any, Any, None]]]
    close: Sequence[Callable[[], Awaitable[None]]]


def build(settings: Settings) -> App:
    """Wire the service; nothing is connected yet."""
    database = Database(settings)
    broker = Broker(settings, {events.STREAM: events.SUBJECTS})
    relay = Relay(database, broker)
    services = Services(SystemClock(), new_id)
    received = consumers.Events(services)
    instance_events = Consumer(
        database,
        broker,
        name=events.INSTANCE_CONSUMER,
        stream=consumers.INSTANCE_STREAM,
        filter_subjects=consumers.INSTANCE_SUBJECTS,
        apply=received.apply_instance_events,
    )
    run_events = Consumer(
        database,
        broker,
        name=events.RUN_CONSUMER,
        stream=consumers.RUN_STREAM,
        filter_subjects=consumers.RUN_SUBJECTS,
        apply=received.apply_run_events,
    )
    consumers.Compared(
        services, database, Comparison(broker, "lineage-service", settings.comparison_grace_seconds)
    ).listen()
    server = Server(
        settings,
        "lineage-service",
        "lineage.optaic",
        [
            (
                lineage_service_pb2_grpc.add_LineageServiceServicer_to_server,
                LineageApi(services, database),
                "optaic.lineage.v1.LineageService",
            )
        ],
        Authenticator(settings),
        ReadTokens(database, {"instance": (events.INSTANCE_CONSUMER,), "run": (events.RUN_CONSUMER,)}),
        dependencies={"postgres": database.ping},
        observed={"nats": broker.ping},
    )
    return App(
        server,
        database,
        broker,
        background={"relay": relay.run, "instance-events": instance_events.run, "run-events": run_events.run},
        close=[broker.close, database.close],
    )


async def main(stop: asyncio.Event) -> None:
    """Run until told to stop."""
    settings = Settings()
    logging.configure(settings.log_level, "lineage-service")
    await migrations.migrate(settings.database_owner_url, "lineage_service")
    app = build(settings)
    await app.database.open()
    await app.broker.connect()
    await runtime.serve(stop, server=app.server, background=app.background, close=app.close)
