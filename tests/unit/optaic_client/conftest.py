"""Services and clients for the tests of this folder."""

from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from optaic.client import AsyncClient
from optaic.instance.v1 import instance_service_pb2
from support.command_line import PRICES
from support.fake_services import FakeServices, fake_services

_VARIABLES = [f"OPTAIC_{each}_ADDRESS" for each in ("INSTANCE", "RUN", "LINEAGE", "STATUS")]


@pytest.fixture
def services() -> Iterator[FakeServices]:
    """All services, as servicers in this process."""
    with fake_services() as running:
        yield running


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Nothing of the developer's own environment is found."""
    for name in (*_VARIABLES, "OPTAIC_TOKEN", "OPTAIC_STATE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def addressed(services: FakeServices, monkeypatch: pytest.MonkeyPatch) -> FakeServices:
    """The services, found through the environment."""
    for name in _VARIABLES:
        monkeypatch.setenv(name, services.address)
    return services


@pytest.fixture
async def client(addressed: FakeServices) -> AsyncIterator[AsyncClient]:
    """An asynchronous client of the services."""
    del addressed
    async with AsyncClient.connect(token="secret") as connected:
        yield connected


@pytest.fixture
def optaic(addressed: FakeServices) -> FakeServices:
    """Services that know the instance `prices`."""
    addressed.on("GetInstance", PRICES)
    addressed.on("ListInstances", instance_service_pb2.ListInstancesResponse(instances=[PRICES]))
    return addressed
