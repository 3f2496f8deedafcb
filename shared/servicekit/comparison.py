"""Compare what services have, by messages that are not stored: the next comparison repeats all of them.

Each owner announces page by page which resources exist. A service that lacks one asks for it, and the owner publishes it
again. Only events change state; a comparison only adds what never changes (`servicekit.locations`). A resource that is
lacking may still be on its way, in an outbox
or at the broker. So a service asks for it only after it has been lacking for a while, and then more and more rarely.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeAlias, TypeVar

import structlog
from google.protobuf.message import DecodeError, Message

from servicekit import context
from servicekit.backoff import backoff
from servicekit.broker import Broker, LiveMessage, connected
from servicekit.ids import new_id
from servicekit.tls import TlsFiles

_ROOT = "optaic-compare"
_NOW, _ENDED = f"{_ROOT}.now", f"{_ROOT}.ended"
_MOST_WANTED = 200  # in one message, which the owner answers in one transaction
_ASK_AGAIN_SECONDS = 10.0
_SETTLING_SECONDS = 2.0
_LONGEST_PAUSE = 3600.0  # seconds between two requests for the same key
_MOST_ASKED = 5_000  # keys of one tenant and topic in one grace period
_MOST_REMEMBERED = 100_000
_LONGEST_UNSEEN = 3600.0  # seconds after which a key that no comparison names makes room
_log = structlog.get_logger(__name__)
M = TypeVar("M", bound=Message)
K = TypeVar("K", bound=Hashable)
Lacked: TypeAlias = Hashable  # the state of a resource that a service does not know


@dataclass
class _Lack:
    what: Lacked
    due: float
    seen: float = 0.0  # when a comparison last named it
    asked: int = 0  # how many times it was asked for


class Lacks:
    """The resources that are missing, since when, and how often they were asked for; in this process only, bounded.

    If there is no room, a key that was asked for makes room for one that was not, and so does one that no comparison has named
    for a while, because it has arrived. Otherwise the newcomer is not remembered; the next comparison brings it again.
    """

    def __init__(self, grace: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._grace = grace
        self._clock = clock
        # Both ordered by when they were last seen.
        self._waiting: OrderedDict[Hashable, _Lack] = OrderedDict()  # never asked for
        self._asked: OrderedDict[Hashable, _Lack] = OrderedDict()
        # When a grace period began, and how many keys were asked for in it.
        self._periods: dict[Hashable, tuple[float, int]] = {}

    def choose(self, scope: Hashable, lacked: Mapping[K, Lacked], *, at_once: bool) -> list[K]:
        """Return which of the lacking keys to ask for now; with `at_once` all of them."""
        now, chosen = self._clock(), []
        begin, count = self._periods.get(scope, (now, 0))
        if now - begin >= self._grace:
            begin, count = now, 0
        found: dict[K, _Lack] = {}
        for key, what in lacked.items():
            lack = self._waiting.pop((scope, key), None) or self._asked.pop((scope, key), None)
            if lack is None or lack.what != what:
                lack = _Lack(what, now + self._grace)
            lack.seen = now
            found[key] = lack
        for key in sorted(found, key=lambda key: found[key].due):  # keys that were never asked for come first
            lack = found[key]
            if at_once or (now >= lack.due and count < _MOST_ASKED):
                chosen.append(key)
                count += 1
                lack.asked += 1
                lack.due = now + backoff(lack.asked, first=2 * self._grace, longest=_LONGEST_PAUSE)
        self._periods[scope] = (begin, count)
        self._remember(scope, found, now)
        return chosen

    def _remember(self, scope: Hashable, found: Mapping[K, _Lack], now: float) -> None:
        for key, lack in found.items():
            if lack.asked:
                self._asked[(scope, key)] = lack
            elif self._has_room(now):
                self._waiting[(scope, key)] = lack
        while self._asked and len(self._waiting) + len(self._asked) > _MOST_REMEMBERED:
            self._asked.popitem(last=False)

    def _has_room(self, now: float) -> bool:
        if len(self._waiting) < _MOST_REMEMBERED:
            return True
        oldest = next(iter(self._waiting))
        is_unseen = now - self._waiting[oldest].seen > _LONGEST_UNSEEN
        if is_unseen:
            del self._waiting[oldest]
        return is_unseen


class Comparison:
    """One service's part in comparisons. Set it up before the broker connects; one replica gets each message."""

    def __init__(self, broker: Broker, service: str, grace: float) -> None:
        self._broker = broker
        self._service = service
        self._lacks = Lacks(grace)

    def on(self, topic: str, kind: type[M], handle: Callable[[str, M], Awaitable[None]]) -> None:
        """Call `handle(tenant_id, message)` for each message on a topic, such as `instances.page`."""

        async def receive(raw: LiveMessage) -> None:
            tenant_id = raw.subject.split(".")[1]
            try:
                message = kind.FromString(raw.data)
                if context.is_tenant_id(tenant_id):
                    await handle(tenant_id, message)
            except DecodeError:
                _log.warning("comparison not understood", topic=topic, tenant_id=tenant_id)
            except Exception as error:  # noqa: BLE001 - the next comparison comes
                _log.warning("comparison failed", topic=topic, tenant_id=tenant_id, error=repr(error))

        self._broker.listen_live(f"{_ROOT}.*.{topic}", receive, queue=self._service)

    async def send(self, tenant_id: str, topic: str, message: Message) -> None:
        """Send a message to the services that listen to a topic."""
        await self._broker.publish_live(f"{_ROOT}.{tenant_id}.{topic}", message.SerializeToString())

    async def ask(
        self,
        tenant_id: str,
        topic: str,
        lacked: Mapping[K, Lacked],
        make: Callable[[Sequence[K]], Message],
        *,
        at_once: bool,
    ) -> None:
        """Ask the owner for missing resources, in parts; only `at_once` also asks for what may still be on its way."""
        wanted = self._lacks.choose((tenant_id, topic), lacked, at_once=at_once)
        if wanted:
            _log.info("asks for lacking resources", topic=topic, tenant_id=tenant_id, count=len(wanted))
        for start in range(0, len(wanted), _MOST_WANTED):
            await self.send(tenant_id, topic, make(wanted[start : start + _MOST_WANTED]))

    def on_request(self, begin: Callable[[bytes], None]) -> None:
        """Call `begin(id)` when an operator asks for a comparison; call `end` when it is done."""

        async def receive(raw: LiveMessage) -> None:
            begin(raw.data)

        self._broker.listen_live(_NOW, receive)

    async def end(self, request_id: bytes) -> None:
        """Announce that a comparison that an operator asked for is done."""
        await self._broker.publish_live(_ENDED, request_id)


async def compare_now(
    url: str,
    timeout: float,  # noqa: ASYNC109 - what an operator waits
    tls: TlsFiles | None = None,
) -> int:
    """Ask for a comparison with the login of instance-service; return how many messages asked for lacking resources.

    Raises:
        TimeoutError: The broker or instance-service does not answer in time.
    """
    request_id, ended, asked = new_id().encode(), asyncio.Event(), 0

    async def receive(raw: LiveMessage) -> None:
        nonlocal asked
        asked += raw.subject.endswith(".wanted")
        if raw.subject == _ENDED and raw.data == request_id:
            ended.set()

    try:
        async with asyncio.timeout(timeout), connected(url, tls=tls) as (client, _):
            await client.subscribe(f"{_ROOT}.>", cb=receive)
            await client.flush()
            while not ended.is_set():  # a message is lost while instance-service is not connected
                await client.publish(_NOW, request_id)
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(_ASK_AGAIN_SECONDS):
                        await ended.wait()
            await asyncio.sleep(_SETTLING_SECONDS)  # the others are still looking at the last pages
    except (TimeoutError, OSError):
        raise TimeoutError(
            f"no comparison ended within {timeout:g} seconds; check that instance-service runs and is connected to NATS"
        ) from None
    return asked
