"""The embedded NATS server with its accounts, the tenants `default` and `acme`, and an administrator that only tests have."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import nats
from nats.aio.client import Client
from nats.js.api import StreamConfig

from devstack import nats as embedded
from devstack import ports
from devstack.nats_accounts import LOGINS, SERVICES_ACCOUNT, account_of, logins_of
from devstack.processes import Process
from devstack.state import State
from optaic.rules.events import STREAMS
from servicekit.broker import DEAD_LETTERS, inbox_of
from servicekit.dead_letters import INBOX
from servicekit.tenant_streams import make_config, management_subject

ADMIN = "admin"  # of the services' account; admin-<tenant> is one of a tenant's
TENANTS = ("default", "acme")


@dataclass
class Broker:
    """A running server; its logins have the passwords of the stack's state."""

    process: Process
    port: int
    passwords: dict[str, str]
    refusals: list[str] = field(default_factory=list)

    @asynccontextmanager
    async def login(self, user: str) -> AsyncIterator[Client]:
        """Connect as one of the users; what the server refuses is noted."""

        async def note(error: Exception) -> None:
            self.refusals.append(str(error))

        url = embedded.make_url(self.port, user, self.passwords[f"nats_{user}"])
        prefix = INBOX if user == "operator" else inbox_of(user if user in LOGINS else "")
        client = await nats.connect(url, error_cb=note, allow_reconnect=False, inbox_prefix=prefix)
        try:
            yield client
        finally:
            await client.close()


@asynccontextmanager
async def nats_with_accounts(state: State, tenants: Sequence[str] = TENANTS) -> AsyncIterator[Broker]:
    """Run the server of a stack; it has no streams yet."""
    port, monitor = ports.find_free(), ports.find_free()
    program = embedded.make_program(state, port, monitor, state.secrets(), tenants)
    passwords = state.draw_secrets([f"nats_{login}" for login in logins_of(tenants)])
    config = state.root / "nats.conf"
    head, _, text = config.read_text(encoding="utf-8").partition("accounts: ")
    accounts = json.loads(text)
    passwords |= {f"nats_{ADMIN}": "tests", **{f"nats_{ADMIN}-{tenant}": "tests" for tenant in tenants}}
    accounts[SERVICES_ACCOUNT]["users"].append({"user": ADMIN, "password": "tests"})
    for tenant in tenants:
        accounts[account_of(tenant)]["users"].append({"user": f"{ADMIN}-{tenant}", "password": "tests"})
    config.write_text(f"{head}accounts: {json.dumps(accounts)}", encoding="utf-8")
    process = Process(state, program)
    await process.start()
    try:
        await process.wait_ready(20)
        yield Broker(process, port, passwords)
    finally:
        await process.stop(5)


async def create_streams(broker: Broker, tenants: Sequence[str] = TENANTS) -> None:
    """Let each login create what it owns: the services' streams, the dead letters, and the streams of tenants."""
    for service, login in LOGINS.items():
        async with broker.login(service) as client:
            jetstream = client.jetstream(timeout=5)
            await jetstream.add_stream(StreamConfig(name=login.stream, subjects=list(STREAMS[login.stream])))
    async with broker.login("instance") as client:
        await client.jetstream(timeout=5).add_stream(
            StreamConfig(name=DEAD_LETTERS, subjects=["optaic-dead.>"])
        )
        for tenant in tenants:
            config = json.dumps(make_config(tenant, list(STREAMS))).encode()
            answer = json.loads(
                (await client.request(management_subject(tenant, "CREATE"), config, timeout=5)).data
            )
            assert "error" not in answer, answer
