"""What the worker tells Prefect and other libraries, and not through the environment."""

from typing import Any

import pytest

from worker.config import Settings
from worker.prefect_adapter import WorkPool

NEEDED: dict[str, Any] = {
    "instance_address": "localhost:1",
    "run_address": "localhost:2",
    "executor_token": "secret",
}


def _settings(**settings: str) -> Settings:
    return Settings(**NEEDED, data_root="/data").model_copy(update=settings)


@pytest.mark.parametrize(
    ("given", "sent"),
    [
        ({"prefect_api_key": "k4n4rie"}, "Bearer k4n4rie"),
        ({"prefect_auth_string": "a:k4n4rie"}, "Basic YTprNG40cmll"),
        ({}, None),
    ],
)
def test_prefect_gets_only_configured_credentials(given: dict[str, str], sent: str | None) -> None:
    settings = _settings(**given)
    pool = WorkPool(settings)
    assert pool._client._client.headers.get("authorization") == sent
    assert not [name for name, value in settings.environment.items() if "k4n4rie" in value]
    assert "PREFECT_API_URL" not in settings.environment


def test_a_data_root_with_credentials_is_refused_without_being_repeated() -> None:
    with pytest.raises(ValueError, match="must not contain credentials") as caught:
        Settings(**NEEDED, data_root="s3://AKIA:k4n4rie@bucket/optaic")
    assert "k4n4rie" not in f"{caught.value} {caught.value!r}"
    assert Settings(**NEEDED, data_root="s3://bucket/a/").data_root == "s3://bucket/a"
