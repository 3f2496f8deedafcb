"""How services compare what they have: in messages that nobody keeps, since the next comparison says it all again.

Owners say page by page what there is; who keeps some of it too asks for what it lacks; owners publish that again.
It must not be the way by which anything is changed: only events change something.
"""

from __future__ import annotations

import asyncio
import contextlib
import uuid
from collections.abc import Awaitable, Callable, Sequence
from typing import TypeVar

import structlog
from google.protobuf.message import DecodeError, Message

from servicekit import context
from servicekit.broker import Broker, LiveMessage, connected

_ROOT = "optaic-compare"
_NOW, _ENDED = f"{_ROOT}.now", f"{_ROOT}.ended"
_MOST_WANTED = 200  # in one message: what it leads to is one transaction
_ASK_AGAIN_SECONDS = 10.0
_SETTLING_SECONDS = 2.0
_ASK_AGAIN_SECONDS = 10.0
_log = structlog.get_logger(__name__)
M = TypeVar("M", bound=Message)
W = TypeVar("W")


class Comparison:
    """One service's part in it, to be set up before the broker is connected; of several replicas one hears each message."""

    def __init__(self, broker: Broker, service: str) -> None:
        self._broker = broker
        self._service = service

    def on(self, topic: str, kind: type[M], handle: Callable[[str, M], Awaitable[None]]) -> None:
        """Call `handle(tenant_id, message)` for what is said on a topic, such as `instances.page`."""

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

    async def say(self, tenant_id: str, topic: str, message: Message) -> None:
        """Tell whoever listens."""
        await self._broker.publish_live(f"{_ROOT}.{tenant_id}.{topic}", message.SerializeToString())

    async def ask(
        self, tenant_id: str, topic: str, wanted: Sequence[W], make: Callable[[Sequence[W]], Message]
    ) -> None:
        """Ask an owner for what is wanted, some at a time."""
        if wanted:
            _log.info("asks for what it lacks", topic=topic, tenant_id=tenant_id, count=len(wanted))
        for start in range(0, len(wanted), _MOST_WANTED):
            await self.say(tenant_id, topic, make(wanted[start : start + _MOST_WANTED]))

    def on_request(self, begin: Callable[[bytes], None]) -> None:
        """Call `begin(id)` when an operator asks for a comparison now; answer with `end` when it is done."""

        async def receive(raw: LiveMessage) -> None:
            begin(raw.data)

        self._broker.listen_live(_NOW, receive)

    async def end(self, request_id: bytes) -> None:
        """Say that a comparison that was asked for is done."""
        await self._broker.publish_live(_ENDED, request_id)


async def compare_now(url: str, timeout: float) -> int:  # noqa: ASYNC109 - what an operator waits
    """Ask for a comparison with a login of instance-service; return how many messages asked for what somebody lacked.

    Raises:
        TimeoutError: The broker or instance-service does not answer in time.
    """
    request_id, ended, asked = uuid.uuid4().hex.encode(), asyncio.Event(), 0

    async def receive(raw: LiveMessage) -> None:
        nonlocal asked
        asked += raw.subject.endswith(".wanted")
        if raw.subject == _ENDED and raw.data == request_id:
            ended.set()

    try:
        async with asyncio.timeout(timeout), connected(url) as (client, _):
            await client.subscribe(f"{_ROOT}.>", cb=receive)
            await client.flush()
            while not ended.is_set():  # what instance-service was not there to hear is lost
                await client.publish(_NOW, request_id)
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(_ASK_AGAIN_SECONDS):
                        await ended.wait()
            await asyncio.sleep(_SETTLING_SECONDS)  # the others are still looking at the last pages
    except (TimeoutError, OSError):
        raise TimeoutError(
            f"nobody has compared within {timeout:g} seconds: does instance-service run, and is it connected to NATS?"
        ) from None
    return asked
