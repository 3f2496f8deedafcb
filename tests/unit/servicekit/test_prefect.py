"""How programs reach Prefect."""

import base64

import pytest
from pydantic_settings import BaseSettings

import instance_service.config
import run_service.config
import worker.config
from servicekit.prefect import PrefectSettings, authorization


def test_an_own_prefect_server_gets_the_text_and_prefect_cloud_the_key() -> None:
    basic = base64.b64encode(b"user:secret").decode()
    assert authorization("", "user:secret") == {"authorization": f"Basic {basic}"}
    assert authorization("key", "user:secret") == {"authorization": f"Basic {basic}"}
    assert authorization("key", "") == {"authorization": "Bearer key"}
    assert authorization("", "") == {}


@pytest.mark.parametrize("program", [instance_service.config, run_service.config, worker.config])
def test_address_and_credentials_of_prefect_stand_once(program: object) -> None:
    settings: type[BaseSettings] = program.Settings  # type: ignore[attr-defined]  # a module with Settings
    assert issubclass(settings, PrefectSettings)
    assert not settings.__annotations__.keys() & PrefectSettings.model_fields.keys()
    shown = repr(settings.model_construct(prefect_api_key="k4n4rie", prefect_auth_string="k4n4rie"))
    assert "k4n4rie" not in shown
