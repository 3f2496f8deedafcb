"""Settings explain themselves and keep their secrets."""

import pytest
from pydantic import ValidationError

from servicekit.settings import ServiceSettings

URL = "postgresql+psycopg://login:password@localhost/database"


@pytest.fixture
def environment(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    for name in ("DATABASE_URL", "DATABASE_OWNER_URL", "DATABASE_INFRA_URL"):
        monkeypatch.setenv(f"OPTAIC_{name}", URL)
    return monkeypatch


def test_every_field_is_documented() -> None:
    for name, field in ServiceSettings.model_fields.items():
        assert field.description, name


@pytest.mark.usefixtures("environment")
def test_the_defaults_need_only_the_database() -> None:
    settings = ServiceSettings()
    assert settings.database_url == URL
    assert settings.auth == "development"


def test_secrets_are_not_shown(environment: pytest.MonkeyPatch) -> None:
    environment.setenv("OPTAIC_SERVICE_TOKEN", "password")
    environment.setenv("OPTAIC_NATS_URL", "nats://user:password@localhost")
    assert "password" not in repr(ServiceSettings())


@pytest.mark.usefixtures("environment")
def test_settings_cannot_be_modified() -> None:
    with pytest.raises(ValidationError):
        ServiceSettings().listen = "elsewhere"  # type: ignore[misc]  # that is the point


def test_nonsense_is_refused_at_the_start(environment: pytest.MonkeyPatch) -> None:
    environment.setenv("OPTAIC_AUTH", "none")
    environment.setenv("OPTAIC_POOL_SIZE", "0")
    with pytest.raises(ValidationError, match="2 validation errors"):
        ServiceSettings()
