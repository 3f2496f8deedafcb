"""What one test stores in its broker no other test sees."""

import nats
import nats.js.errors
import pytest

from support.broker import NatsAccounts


async def test_accounts_share_neither_streams_nor_subjects(nats_accounts: NatsAccounts) -> None:
    one, other = await nats.connect(nats_accounts.take()), await nats.connect(nats_accounts.take())
    try:
        await one.jetstream().add_stream(name="S", subjects=["s.>"])
        with pytest.raises(nats.js.errors.NotFoundError):
            await other.jetstream().stream_info("S")
        with pytest.raises(nats.js.errors.NoStreamResponseError):
            await other.jetstream().publish("s.x", b"")
    finally:
        await one.close()
        await other.close()


async def test_there_are_more_of_them_than_a_server_has() -> None:
    accounts = NatsAccounts()
    try:
        urls = {accounts.take() for _ in range(60)}
        client = await nats.connect(accounts.take())
        assert (await client.jetstream().account_info()).streams == 0
        await client.close()
    finally:
        accounts.close()
    assert len(urls) == 60
