"""The settings of the embedded stack."""

from pathlib import Path

import pytest
from pydantic import ValidationError

from devstack import Settings, supervisor


def test_a_supervisor_gets_the_settings_as_they_are(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    settings = Settings(tenants=("default", "acme"), auth="tokens", prefect_ui=False, state=tmp_path)
    for name, value in supervisor._environment(settings).items():
        monkeypatch.setenv(name, value)
    assert Settings() == settings


def test_every_setting_is_documented() -> None:
    assert not [name for name, field in Settings.model_fields.items() if not field.description]


def test_settings_come_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPTAIC_EXECUTOR", "process")
    monkeypatch.setenv("OPTAIC_RUN_PORT", "25001")
    monkeypatch.setenv("OPTAIC_STATE", "/tmp/elsewhere")  # noqa: S108 - a name only
    settings = Settings()
    assert (settings.executor, settings.run_port, settings.root) == ("process", 25001, Path("/tmp/elsewhere"))  # noqa: S108 - a name only


def test_an_unknown_executor_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPTAIC_EXECUTOR", "rocket")
    with pytest.raises(ValidationError, match="executor"):
        Settings()


def test_settings_are_frozen() -> None:
    with pytest.raises(ValidationError, match="frozen"):
        Settings().executor = "process"  # type: ignore[misc]  # the refusal is what is tested
