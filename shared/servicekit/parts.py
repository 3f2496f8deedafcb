"""Make the parts that every service has, and assemble them with the service's own parts."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Coroutine, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from servicekit.admission import Admission, Locate
from servicekit.app import App
from servicekit.audit.trail import AuditTrail
from servicekit.auth import make_authenticator
from servicekit.bindings import RoleBindings
from servicekit.broker import Broker
from servicekit.clock import Clock, SystemClock
from servicekit.comparison import Comparison
from servicekit.consumer import Consumer
from servicekit.database import Database
from servicekit.ids import IdSource, new_id
from servicekit.loop import Loop
from servicekit.relay import Relay
from servicekit.server import Check, Registration, Server
from servicekit.settings import ServiceSettings
from servicekit.signing import Signer, load_signer
from servicekit.tokens import ReadTokens

_Dependencies = TypeVar("_Dependencies")
_Step = Callable[[], Awaitable[None]]


@dataclass(frozen=True)
class Parts:
    """The parts that every service has; a service makes its dependencies of the first of them."""

    name: str
    settings: ServiceSettings
    database: Database
    clock: Clock
    ids: IdSource
    signer: Signer
    broker: Broker
    relay: Relay
    comparison: Comparison

    def assemble(
        self,
        deps: _Dependencies,
        servicers: Sequence[Registration],
        consumers: Sequence[Consumer],
        *,
        read_rules: Mapping[str, tuple[str, ...]] | None = None,
        locate: Locate | None = None,
        observed: Mapping[str, Check] | None = None,
        loops: Sequence[Loop] = (),
        background: Mapping[str, Callable[[], Coroutine[Any, Any, None]]] | None = None,
        before_broker: Sequence[_Step] = (),
        close: Sequence[_Step] = (),
        on_stop: Callable[[], None] = lambda: None,
    ) -> App[_Dependencies]:
        """Return the service, which does not run yet.

        `read_rules` names, for the write tokens of each other service, the consumers for which a read waits. `locate`
        finds the project of a resource, for callers with a role in one project. `observed` are the outside systems that
        health shows without depending on them. `before_broker` runs when the database is open, `close` before the parts
        that every service has are closed.
        """
        trail = AuditTrail(self.database, self.signer, self.clock)
        server = Server(
            self.settings,
            self.name,
            f"{self.name.removesuffix('-service')}.optaic",
            servicers,
            Admission(make_authenticator(self.settings), RoleBindings(self.database), locate),
            ReadTokens(self.database, read_rules or {}),
            dependencies={"postgres": self.database.ping},
            observed={"nats": self.broker.ping, **(observed or {})},
            trail=trail,
            on_stop=on_stop,
        )
        return App(
            deps,
            server,
            {
                "relay": self.relay.run,
                **trail.background,
                **{consumer.name: consumer.run for consumer in consumers},
                **{loop.name: loop.run for loop in loops},
                **(background or {}),
            },
            open=[self.database.open, *before_broker, self.broker.connect],
            close=[*close, trail.denials.close, self.broker.close, self.database.close],
        )


async def make_parts(
    name: str, settings: ServiceSettings, streams: Mapping[str, Sequence[str]], *, clock: Clock | None = None
) -> Parts:
    """Make the parts of a service that publishes to `streams`; the broker is connected when the app opens.

    Raises:
        UnavailableError: The database does not answer.
    """
    database = Database(settings)
    broker = Broker(settings, streams, name)
    return Parts(
        name,
        settings,
        database,
        clock or SystemClock(),
        new_id,
        await load_signer(database),
        broker,
        Relay(database, broker),
        Comparison(broker, name, settings.comparison_grace_seconds),
    )
