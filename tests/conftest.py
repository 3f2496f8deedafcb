"""Fixtures for all tests: the real servers."""

from collections.abc import Iterator
from importlib.metadata import entry_points

import hypothesis
import pytest
import structlog
from xdist.scheduler import LoadScopeScheduling

from devstack.postgres import Postgres
from support.broker import NatsAccounts, NatsServer, nats_server
from support.mlflow_api import running_mlflow
from support.object_store import ObjectStore, running_object_store
from support.postgres import running_postgres
from support.prefect_api import running_prefect
from support.sharing import LongestFirst, count_processes


def pytest_configure() -> None:
    """Say at once what would otherwise show as a hundred missing definitions."""
    if "builtin" not in entry_points(group="optaic.definitions").names:
        pytest.exit("the installed project is older than pyproject.toml: run make setup", returncode=4)
    # A busy machine is no failure: no example has a deadline, and none is too slow to make.
    slow = [hypothesis.HealthCheck.too_slow]
    hypothesis.settings.register_profile("optaic", deadline=None, suppress_health_check=slow)
    hypothesis.settings.load_profile("optaic")
    # The default draws every traceback with the values of its variables: half a second of the loop's time each.
    renderer = structlog.dev.ConsoleRenderer(colors=False, exception_formatter=structlog.dev.plain_traceback)
    structlog.configure(processors=[*structlog.get_config()["processors"][:-1], renderer])


def pytest_xdist_make_scheduler(config: pytest.Config, log: object) -> LoadScopeScheduling:
    """Share the tests out."""
    return LongestFirst(config, log)


def pytest_xdist_auto_num_workers() -> int:
    """How many processes `-n auto` means."""
    return count_processes()


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[Postgres]:
    """Yield the session's PostgreSQL; take databases of it with `support.postgres.service_database`."""
    with running_postgres() as server:
        yield server


@pytest.fixture(scope="session")
def prefect_url(postgres_server: Postgres, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Yield the address of the API of the session's Prefect server."""
    with running_prefect(postgres_server, tmp_path_factory.mktemp("prefect")) as url:
        yield url


@pytest.fixture(scope="session")
def mlflow_url(postgres_server: Postgres, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Yield the address of the session's MLflow server."""
    with running_mlflow(postgres_server, tmp_path_factory.mktemp("mlflow")) as url:
        yield url


@pytest.fixture(scope="session")
def object_store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ObjectStore]:
    """Yield the session's S3 server, with one bucket and two tenants."""
    with running_object_store(tmp_path_factory.mktemp("object-store")) as store:
        yield store


@pytest.fixture
def nats() -> Iterator[NatsServer]:
    """Yield the test's own NATS server, which the test may kill."""
    with nats_server() as server:
        yield server


@pytest.fixture(scope="session")
def nats_accounts() -> Iterator[NatsAccounts]:
    """Empty brokers on a server of the session."""
    accounts = NatsAccounts()
    yield accounts
    accounts.close()


@pytest.fixture
def nats_url(request: pytest.FixtureRequest, nats_accounts: NatsAccounts) -> str:
    """Yield the address of the test's own broker: of its server where it has one, else of an account that nobody has used."""
    if "nats" in request.fixturenames:
        return str(request.getfixturevalue("nats").url)
    return nats_accounts.take()
