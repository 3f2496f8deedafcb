"""How a worker is told of its object store, and who gets the credential."""

from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from optaic import storage
from optaic.storage import Access
from support.object_store import installed
from worker import environment
from worker.config import Settings
from worker.storage_access import reach, renew_access

NEEDED: dict[str, Any] = {
    "instance_address": "127.0.0.1:1",
    "run_address": "127.0.0.1:1",
    "executor_token": "token",
    "data_root": "s3://bucket/data",
}
KEY: dict[str, Any] = {"s3_access_key_id": "key", "s3_secret_access_key": "k4n4rie"}


@pytest.mark.parametrize(
    "wrong",
    [
        {"s3_access_key_id": "key"},
        {"s3_secret_access_key": "k4n4rie"},
        {**KEY, "s3_endpoint": "s3.example.com"},
        {**KEY, "s3_endpoint": "http://s3.example.com"},
    ],
)
def test_a_credential_that_is_not_whole_or_would_leave_in_plaintext_is_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValidationError) as caught:
        Settings(**NEEDED, **wrong)
    assert "OPTAIC_S3_" in str(caught.value)
    assert "k4n4rie" not in str(caught.value)


def test_the_secret_is_shown_nowhere() -> None:
    settings = Settings(**NEEDED, **KEY)
    assert settings.storage.secret_access_key == "k4n4rie"
    assert "k4n4rie" not in f"{settings!r} {settings.storage!r}"


def test_a_secret_in_a_file_is_read_again(tmp_path: Path) -> None:
    file = tmp_path / "secret"
    settings = Settings(**NEEDED, s3_access_key_id="key", s3_secret_access_key_file=file)
    for secret in ("one", "two"):
        file.write_text(f"{secret}\n")
        assert settings.storage.secret_access_key == secret
        variables = {"OPTAIC_S3_ACCESS_KEY_ID": "key", "OPTAIC_S3_SECRET_ACCESS_KEY_FILE": str(file)}
        assert Access.from_environment(variables) == settings.storage


def test_the_environment_says_the_same_as_the_settings() -> None:
    given = {
        "s3_endpoint": "https://s3.example.com",
        "s3_region": "eu-central-1",
        "s3_path_style": "false",
        "s3_session_token": "t",
        "s3_timeout_seconds": "5",
        "s3_patience_seconds": "7",
        **KEY,
    }
    variables = {f"OPTAIC_{name.upper()}": value for name, value in given.items()}
    settings: dict[str, Any] = {**NEEDED, **given}
    assert Access.from_environment(variables) == Settings(**settings).storage
    assert Access.from_environment({}) == Settings(**NEEDED).storage


@pytest.mark.parametrize(("own", "kept"), [({}, True), (KEY, False)])
def test_user_code_gets_the_variables_of_the_library_only_without_a_credential_of_ours(
    own: dict[str, Any], kept: bool
) -> None:
    given = {"AWS_SECRET_ACCESS_KEY": "x", "OPTAIC_S3_SECRET_ACCESS_KEY": "y", "PATH": "/bin"}
    found = environment.clean(given, Settings(**NEEDED, **own))
    assert ("AWS_SECRET_ACCESS_KEY" in found) is kept
    assert "OPTAIC_S3_SECRET_ACCESS_KEY" not in found


async def test_the_worker_goes_on_with_the_former_secret_where_the_file_is_away(tmp_path: Path) -> None:
    file = tmp_path / "secret"
    settings = Settings(**NEEDED, s3_access_key_id="key", s3_secret_access_key_file=file)

    def read_secret() -> str:
        return storage.current().secret_access_key

    with installed(Access(secret_access_key="of the start")):
        assert await reach(settings, read_secret) == "of the start"
        file.write_text("of now\n")
        assert await reach(settings, read_secret) == "of now"
        file.unlink()
        assert await reach(settings, read_secret) == "of now"
        with pytest.raises(FileNotFoundError):
            renew_access(settings)


async def test_a_folder_needs_no_secret(tmp_path: Path) -> None:
    settings = Settings(**{**NEEDED, "data_root": str(tmp_path)}, **KEY)
    with installed(Access(secret_access_key="of the start")):
        assert (await reach(settings, storage.current)).secret_access_key == "of the start"
