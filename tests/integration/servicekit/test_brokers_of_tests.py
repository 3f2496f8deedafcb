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


async def test_an_account_outlives_the_last_one_of_its_server() -> None:
    """Fixtures of a module keep theirs while its tests take others."""
    accounts = NatsAccounts()
    try:
        client = await nats.connect(accounts.take())
        urls = {accounts.take() for _ in range(60)}
        assert len({url.rpartition("@")[2] for url in urls}) == 2
        assert (await client.jetstream().account_info()).streams == 0
        await client.close()
    finally:
        accounts.close()


async def test_a_server_that_was_killed_is_followed_by_another() -> None:
    accounts = NatsAccounts()
    try:
        accounts.take()
        accounts._servers[-1][0].kill()
        client = await nats.connect(accounts.take())
        assert (await client.jetstream().account_info()).streams == 0
        await client.close()
    finally:
        accounts.close()
