"""What the worker tells libraries through their environment."""

from worker.config import Settings


def _environment(**settings: str) -> dict[str, str]:
    given = Settings(instance_address="a:1", run_address="a:2", data_root="/data").model_copy(update=settings)
    return dict(given.environment)


def test_prefect_gets_the_credentials_that_are_given_and_none_otherwise() -> None:
    assert _environment(prefect_api_key="secret")["PREFECT_API_KEY"] == "secret"
    assert _environment(prefect_auth_string="a:b")["PREFECT_API_AUTH_STRING"] == "a:b"
    assert not {"PREFECT_API_KEY", "PREFECT_API_AUTH_STRING"} & set(_environment())
