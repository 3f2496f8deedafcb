"""Upgrade a service's schema to its newest revision at start; several replicas may start at once."""

from __future__ import annotations

import asyncio
import importlib.util
import time
from pathlib import Path

import sqlalchemy as sa
import structlog
from alembic.config import Config
from alembic.runtime.environment import EnvironmentContext
from alembic.script import ScriptDirectory

_LOCK = sa.text("select pg_advisory_lock(hashtextextended('servicekit.migrations', 0))")
_CONNECT_PATIENCE = 60.0
_log = structlog.get_logger(__name__)


async def migrate(owner_url: str, package: str) -> None:
    """Upgrade to the newest revision in `<package>/migrations`, in one transaction; wait until the database is up."""
    await asyncio.to_thread(_migrate, owner_url, package)


def script_directory(package: str) -> ScriptDirectory:
    """Return a service's migrations; their files are named by time and lie in the folder itself."""
    spec = importlib.util.find_spec(package)
    if spec is None or not spec.submodule_search_locations:
        raise ModuleNotFoundError(f"{package} is not a package")
    folder = str(Path(spec.submodule_search_locations[0]) / "migrations")
    return ScriptDirectory(folder, version_locations=[folder])


def _migrate(owner_url: str, package: str) -> None:
    script = script_directory(package)
    engine = sa.create_engine(
        owner_url, poolclass=sa.pool.NullPool, connect_args={"connect_timeout": 5}, hide_parameters=True
    )
    with _connect(engine) as connection:
        connection.execute(sa.text("set lock_timeout = '60s'"))
        connection.execute(_LOCK)
        # A running replica must not be blocked behind a table lock that we wait for.
        connection.execute(sa.text("set lock_timeout = '5s'"))
        connection.commit()
        environment = EnvironmentContext(
            Config(),
            script,
            fn=lambda revision, _context: script._upgrade_revs("head", revision),  # noqa: SLF001 - as alembic.command does
        )
        with environment:
            environment.configure(connection=connection)
            with environment.begin_transaction():
                environment.run_migrations()
    engine.dispose()
    _log.info("schema is up to date", package=package, head=script.get_current_head())


def _connect(engine: sa.Engine) -> sa.Connection:
    patience = time.monotonic() + _CONNECT_PATIENCE
    while True:
        try:
            return engine.connect()
        except sa.exc.OperationalError as error:
            if time.monotonic() > patience:
                raise
            _log.info("waiting for the database", error=str(error.orig))
            time.sleep(0.2)
