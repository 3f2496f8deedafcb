"""A whole process: migrates, serves, relays; writes its address to the file it is given."""

import asyncio
import sys
from pathlib import Path

from integration.servicekit.echo import EchoServicer, serving_parts
from integration.servicekit.sample import SAMPLE_PACKAGE, STREAMS
from servicekit import logging, migrations, runtime
from servicekit.app import App, serve
from servicekit.broker import Broker
from servicekit.database import Database
from servicekit.relay import Relay
from servicekit.settings import ServiceSettings


async def main(stop: asyncio.Event) -> None:
    """Run until `stop`."""
    settings = ServiceSettings()
    logging.configure(settings.log_level, "sample-service")
    await migrations.migrate(settings.database_owner_url, SAMPLE_PACKAGE)
    database, broker = Database(settings), Broker(settings, STREAMS)
    server = serving_parts(
        EchoServicer(),
        settings,
        dependencies={"database": database.ping},
        observed={"broker": broker.ping},
    )

    async def announce() -> None:
        Path(sys.argv[1]).write_text(server.address)  # noqa: ASYNC240 - a few bytes
        if sys.argv[2:] == ["crash"]:
            raise ZeroDivisionError("background work crashes")
        await asyncio.Event().wait()

    app = App(
        None,
        server,
        {"relay": Relay(database, broker).run, "announce": announce},
        open=[database.open, broker.connect],
        close=[broker.close, database.close],
    )
    await serve(stop, app)


runtime.run(main)
