"""The tenants of one batch of events: a burst of one, or what takes too long, keeps no other waiting."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import pytest
from sqlalchemy.ext.asyncio import AsyncConnection

from integration.servicekit.processes import replica, running
from integration.servicekit.sample import sample_event
from integration.servicekit.streams import count
from integration.servicekit.test_consumer import Applied, notes, publish, sample_consumer, settled
from servicekit import consumer as consumer_module
from servicekit.consumer import Received
from servicekit.settings import ServiceSettings
from support.polling import eventually


class Slow(Applied):
    """An apply function to which more than ten events of one tenant, and some alone, take longer than a transaction may."""

    async def apply(self, connection: AsyncConnection, tenant_id: str, batch: Sequence[Received]) -> None:
        """Implement `servicekit.consumer.Apply`."""
        await super().apply(connection, tenant_id, batch)
        texts = self.batches[-1][1]
        if tenant_id == "acme" and (len(texts) > 10 or "endless" in texts):
            self.batches.pop()
            raise TimeoutError  # as the transaction would when its time is over


@pytest.fixture(autouse=True)
def _retries_come_soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(consumer_module, "_RETRY_DELAY", 0.02)


async def test_a_burst_of_one_tenant_is_applied_after_the_few_events_of_others(
    broker_settings: ServiceSettings,
) -> None:
    applied = Applied()
    burst = [f"n{number:02}" for number in range(60)]
    async with replica(broker_settings) as process:
        await process[1].ready()
        await publish(
            broker_settings.nats_url,
            *(sample_event(text) for text in burst[:50]),
            *(sample_event(text, "rival") for text in ("a", "b")),
            sample_event("c", "third"),
            *(sample_event(text) for text in burst[50:]),
        )
        async with running(sample_consumer(process, applied).run):
            await settled(broker_settings.nats_url)
    # However the broker divides them into batches, the burst comes last in each.
    assert applied.batches[-1][0] == "acme"
    texts = {
        tenant: [text for each, texts in applied.batches if each == tenant for text in texts]
        for tenant in ("acme", "rival", "third")
    }
    assert texts == {"acme": burst, "rival": ["a", "b"], "third": ["c"]}


async def test_a_tenant_whose_events_take_too_long_for_one_transaction_blocks_nobody(
    broker_settings: ServiceSettings,
) -> None:
    url, slow = broker_settings.nats_url, Slow()
    burst = [f"n{number:02}" for number in range(48)]
    async with replica(broker_settings) as process:
        await process[1].ready()
        await publish(url, *(sample_event(text) for text in burst), sample_event("other", "rival"))
        async with running(sample_consumer(process, slow).run):
            await settled(url)
            assert [text for tenant, texts in slow.batches if tenant == "acme" for text in texts] == burst
            # What never ends is tried again and again, and the others go on.
            await publish(url, sample_event("endless"))
            for text in ("more0", "more1", "more2"):
                await publish(url, sample_event(text, "rival"))
                await eventually(partial(slow.batches.count, ("rival", [text])))
        assert await notes(process[0], "acme") == burst
        assert await notes(process[0], "rival") == ["more0", "more1", "more2", "other"]
    assert await count(url, "DEAD_LETTERS") == 0
