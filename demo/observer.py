"""Two independent witnesses of the job: the status watch and a NATS subscriber; neither polls nor publishes."""

import asyncio
import ssl
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field

import nats
from nats.aio.msg import Msg

from optaic.client import AsyncClient, word


@dataclass
class Observed:
    """The record of what the witnesses have seen so far."""

    statuses: dict[str, str] = field(default_factory=dict)
    """Newest status word for each instance id."""
    history: list[tuple[str, str]] = field(default_factory=list)
    """Every (instance id, status word) in the order it was seen, repeats left out."""
    events: Counter[str] = field(default_factory=Counter)
    """Number of NATS events for each type."""
    changed: asyncio.Event = field(default_factory=asyncio.Event)

    def see_status(self, instance_id: str, word: str) -> None:
        """Record a status as the watch delivered it."""
        if self.statuses.get(instance_id) != word:
            self.statuses[instance_id] = word
            self.history.append((instance_id, word))
        self.changed.set()

    def words(self, instance_id: str, since: int = 0) -> list[str]:
        """Return the status words of one instance in the order seen, from position `since` of the history."""
        return [word for seen_id, word in self.history[since:] if seen_id == instance_id]

    async def until(self, condition: Callable[[], bool], what: str, seconds: float = 30) -> None:
        """Wait for a condition on what was seen.

        Raises:
            TimeoutError: it did not come true within `seconds`.
        """
        try:
            async with asyncio.timeout(seconds):
                while not condition():
                    self.changed.clear()
                    await self.changed.wait()
        except TimeoutError:
            raise TimeoutError(f"not seen within {seconds:.0f} s: {what}") from None


@asynccontextmanager
async def observe(
    client: AsyncClient,
    nats_url: str,
    on_change: Callable[[], None],
    tls: ssl.SSLContext | None = None,
) -> AsyncIterator[Observed]:
    """Watch statuses and count events until the block ends.

    Args:
        client: a connected client.
        nats_url: URL with the read-only subscriber's login.
        on_change: called after each thing seen.
        tls: how to connect to a server whose URL begins with `tls://`.
    """
    observed = Observed()

    async def watch() -> None:
        async for change in client.status.watch():
            if change.HasField("instance_status"):
                status = change.instance_status
                observed.see_status(status.instance_id, word(status, "status"))
                on_change()

    async def count(message: Msg) -> None:
        observed.events[(message.headers or {}).get("ce-type", "unknown").rsplit(".", 1)[-1]] += 1
        on_change()

    connection = await nats.connect(nats_url, tls=tls)
    await connection.subscribe("optaic.>", cb=count)
    watching = asyncio.create_task(watch())
    try:
        yield observed
    finally:
        watching.cancel()
        with suppress(asyncio.CancelledError):
            await watching
        await connection.close()
