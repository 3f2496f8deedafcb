"""The composition root: builds status-service and runs it; holds no rule."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

from optaic.status.v1.status_service_pb2_grpc import add_StatusServiceServicer_to_server
from servicekit import logging, migrations, runtime
from servicekit.auth import Authenticator
from servicekit.broker import Broker
from servicekit.clock import SystemClock
from servicekit.comparison import Comparison
from servicekit.consumer import Consumer
from servicekit.database import Database
from servicekit.ids import new_id
from servicekit.loop import Loop
from servicekit.relay import Relay
from servicekit.server import Server
from servicekit.tokens import ReadTokens
from status_service import consumers, events, use_cases
from status_service.centrifugo_adapter import CentrifugoStatusPublisher
from status_service.config import Settings
from status_service.grpc_api import StatusServicer
from status_service.nats_adapter import NatsStatusPublisher
from status_service.ports import StatusPublisher
from status_service.reconcile import Compaction
from status_service.watch import ChangeFeed


class Application:
    """Everything of one process, wired."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.database = Database(settings)
        self.broker = Broker(settings, {events.STREAM: events.SUBJECTS})
        self.feed = ChangeFeed(
            self.database,
            poll_seconds=settings.watch_poll_seconds,
            buffer_size=settings.watch_buffer,
            bookmark_seconds=settings.watch_bookmark_seconds,
        )
        publishers: list[StatusPublisher] = [NatsStatusPublisher(self.broker)]
        self._close = [self.broker.close, self.database.close]
        if settings.centrifugo_url:
            centrifugo = CentrifugoStatusPublisher(
                settings.centrifugo_url, settings.centrifugo_api_key, settings.centrifugo_timeout_seconds
            )
            publishers.append(centrifugo)
            self._close.insert(0, centrifugo.close)
        self.live = consumers.LiveStatuses(publishers, settings.live_buffer)
        self.instance_events = self._consumer(
            consumers.INSTANCE_EVENTS,
            "INSTANCE_EVENTS",
            # Definitions' events too: a caller's write token of one of them must not wait in vain.
            ["optaic.*.instance.v1.>", "optaic.*.definition.v1.>"],
            consumers.FactConsumer(consumers.on_instance, self.live, self.feed.wake, SystemClock(), new_id),
        )
        self.lineage_events = self._consumer(
            consumers.LINEAGE_EVENTS,
            "LINEAGE_EVENTS",
            ["optaic.*.lineage.v1.flow_statuses_changed.>"],
            consumers.FactConsumer(
                consumers.on_flow_statuses_changed, self.live, self.feed.wake, SystemClock(), new_id
            ),
        )
        consumers.Compared(
            self.database, Comparison(self.broker, "status-service", self.settings.comparison_grace_seconds)
        ).listen()
        compaction = Compaction(self.database, settings.watch_retention_revisions)
        self.compaction = Loop("compaction", settings.compaction_interval_seconds, compaction.step)
        self.relay = Relay(self.database, self.broker)
        self.server = self._server()

    def _consumer(
        self, name: str, stream: str, subjects: list[str], facts: consumers.FactConsumer
    ) -> Consumer:
        return Consumer(
            self.database,
            self.broker,
            name=name,
            stream=stream,
            filter_subjects=subjects,
            apply=facts.apply,
            committed=facts.committed,
        )

    def _server(self) -> Server:
        # A run, or an instance's edges, count as seen once lineage-service's view of them has arrived.
        rules = {
            "instance": (consumers.INSTANCE_EVENTS, use_cases.LINEAGE_ECHO),
            "run": (use_cases.LINEAGE_ECHO,),
            "lineage": (consumers.LINEAGE_EVENTS,),
        }
        registration = (
            add_StatusServiceServicer_to_server,
            StatusServicer(self.database, self.feed),
            "optaic.status.v1.StatusService",
        )
        return Server(
            self.settings,
            "status-service",
            "status.optaic",
            [registration],
            Authenticator(self.settings),
            ReadTokens(self.database, rules),
            dependencies={"postgres": self.database.ping},
            observed={"nats": self.broker.ping},
        )

    async def serve(self, stop: asyncio.Event) -> None:
        """Open the connections, and serve until `stop` is set."""
        await self.database.open()
        await self.broker.connect()
        background: dict[str, Callable[[], Coroutine[Any, Any, None]]] = {
            "relay": self.relay.run,
            "instance-events": self.instance_events.run,
            "lineage-events": self.lineage_events.run,
            "live": self.live.run,
            "compaction": self.compaction.run,
        }
        await runtime.serve(stop, server=self.server, background=background, close=self._close)


async def main(stop: asyncio.Event) -> None:
    """Run status-service until `stop` is set."""
    settings = Settings()
    logging.configure(settings.log_level, "status-service")
    await migrations.migrate(settings.database_owner_url, "status_service")
    await Application(settings).serve(stop)
