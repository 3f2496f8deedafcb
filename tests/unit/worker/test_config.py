"""What the worker tells libraries through their environment."""

import pytest

from worker.config import Settings


def _environment(**settings: str) -> dict[str, str]:
    given = Settings(instance_address="a:1", run_address="a:2", data_root="/data").model_copy(update=settings)
    return dict(given.environment)


def test_prefect_gets_only_configured_credentials() -> None:
    assert _environment(prefect_api_key="secret")["PREFECT_API_KEY"] == "secret"
    assert _environment(prefect_auth_string="a:b")["PREFECT_API_AUTH_STRING"] == "a:b"
    assert not {"PREFECT_API_KEY", "PREFECT_API_AUTH_STRING"} & set(_environment())


def test_a_data_root_with_credentials_is_refused_without_being_repeated() -> None:
    with pytest.raises(ValueError, match="must not contain credentials") as caught:
        Settings(instance_address="a:1", run_address="a:2", data_root="s3://AKIA:k4n4rie@bucket/optaic")
    assert "k4n4rie" not in f"{caught.value} {caught.value!r}"
    assert (
        Settings(instance_address="a:1", run_address="a:2", data_root="s3://bucket/a/").data_root
        == "s3://bucket/a"
    )
