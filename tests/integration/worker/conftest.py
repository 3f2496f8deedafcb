"""What a worker talks to."""

from __future__ import annotations

import uuid
from collections.abc import AsyncIterator, Iterator
from contextlib import AbstractContextManager
from pathlib import Path

import psycopg
import pytest
import sqlalchemy as sa
from psycopg import sql

from devstack.postgres import Postgres
from support.prefect_api import PrefectApi, prefect_api
from support.sources import allow_server, allowed
from support.sql_source import DAYS, PASSWORD, Database
from support.worker import World, running_world
from support.worker_process import WorkerProcess


@pytest.fixture
async def prefect(prefect_url: str) -> AsyncIterator[PrefectApi]:
    async with prefect_api(prefect_url) as api:
        yield api


@pytest.fixture
async def world() -> AsyncIterator[World]:
    async with running_world() as running:
        yield running


@pytest.fixture
def fixture(world: World, prefect: PrefectApi, prefect_url: str, tmp_path: Path) -> WorkerProcess:
    return WorkerProcess(world, prefect, prefect_url, tmp_path)


@pytest.fixture(params=["sqlite", "postgresql"])
def database(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Database]:
    name = f"source_{uuid.uuid4().hex[:12]}"
    if request.param == "sqlite":
        url = shown = f"sqlite:///{tmp_path}/{name}.db"
        policy: AbstractContextManager[object] = allowed()
    else:
        server: Postgres = request.getfixturevalue("postgres_server")
        with psycopg.connect(server.admin_url, autocommit=True) as connection:
            connection.execute(sql.SQL("create database {}").format(sql.Identifier(name)))
        url = f"postgresql+psycopg://postgres:{PASSWORD}@{server.host}/{name}"
        shown = url.replace(PASSWORD, "${OPTAIC_SECRET_SOURCE}")
        policy = allow_server(server, OPTAIC_SECRET_SOURCE=PASSWORD)
    engine = sa.create_engine(url, poolclass=sa.NullPool)
    found = Database(shown, engine)
    found.execute("create table prices (day date, ticker text, px numeric(10, 2), seq bigint)")
    found.insert((DAYS[0], "a", 1.25, 1), (DAYS[0], "b", None, 2), (DAYS[1], "a", 3.5, 3))
    with policy:
        yield found
    if request.param == "postgresql":
        with psycopg.connect(server.admin_url, autocommit=True) as connection:
            connection.execute(sql.SQL("drop database {} with (force)").format(sql.Identifier(name)))
