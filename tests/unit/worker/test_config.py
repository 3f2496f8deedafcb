"""What the worker tells libraries through their environment."""

from worker.config import Settings


def _environment(prefect_api_key: str) -> dict[str, str]:
    settings = Settings(
        instance_address="a:1", run_address="a:2", data_root="/data", prefect_api_key=prefect_api_key
    )
    return dict(settings.environment)


def test_prefect_gets_the_key_that_is_given_and_none_otherwise() -> None:
    assert _environment("secret")["PREFECT_API_KEY"] == "secret"
    assert "PREFECT_API_KEY" not in _environment("")
