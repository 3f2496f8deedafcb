"""No setting sends something beyond this machine without TLS, unless the flag says so."""

from __future__ import annotations

from typing import Any

import pytest

import instance_service.config
import run_service.config
import status_service.config
import worker.config
from servicekit.plaintext import leaves_in_plaintext
from servicekit.settings import TlsSettings

PROGRAMS = [instance_service.config.Settings, run_service.config.Settings, status_service.config.Settings]
STAYING = [
    "http://127.0.0.1:4200/api",
    "http://[::1]:4200/api",
    "nats://user:password@localhost:4222",
    "https://prefect.example.com/api",
    "tls://nats.example.com:4222",
    "postgresql+psycopg://login:password@127.0.0.1:5432/run",
    "postgresql+psycopg:///run?host=/var/run/postgresql",
    "postgresql+psycopg://login@%2Fvar%2Frun/run",
    "postgresql+psycopg://login:pass@db.example.com/run?sslmode=verify-full&sslrootcert=/ca.pem",
    "postgresql://one.example.com:5432,two.example.com:5433/run?sslmode=require",
    "",
]
LEAVING = [
    "http://prefect.example.com/api",
    "http://localhost.example.com/api",
    "http://127.0.0.1@evil.example.com/",
    "http://0.0.0.0:4200/api",
    "http://10.0.0.1:4200",
    "nats://user:password@nats.example.com:4222",
    "ws://nats.example.com",
    "postgresql+psycopg://login:password@db.example.com/run",
    "postgresql+psycopg://login:password@db.example.com/run?sslmode=prefer",
    "postgresql+psycopg://login:password@db.example.com/run?sslmode=disable",
    "postgresql+psycopg://login@localhost,db.example.com/run",
    "postgresql+psycopg:///run?host=db.example.com",
    "postgresql+psycopg://localhost/run?hostaddr=10.0.0.1",
]


@pytest.fixture(autouse=True)
def _no_mode_of_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("PGSSLMODE", raising=False)


@pytest.mark.parametrize("url", STAYING)
def test_what_stays_or_is_encrypted_is_accepted(url: str) -> None:
    assert not leaves_in_plaintext(url)


@pytest.mark.parametrize("url", LEAVING)
def test_what_leaves_in_plaintext_is_noticed(url: str) -> None:
    assert leaves_in_plaintext(url)


def test_the_mode_of_postgresql_may_come_from_its_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PGSSLMODE", "verify-full")
    assert not leaves_in_plaintext("postgresql+psycopg://login@db.example.com/run")
    assert leaves_in_plaintext("postgresql+psycopg://login@db.example.com/run?sslmode=disable")


@pytest.mark.parametrize("program", [*PROGRAMS, worker.config.Settings])
def test_every_setting_with_a_server_is_refused_in_plaintext_and_allowed_by_the_flag(
    program: type[TlsSettings],
) -> None:
    local: dict[str, Any] = {
        name: "/data" if name == "data_root" else "127.0.0.1:1" if name.endswith("_address") else "unused"
        for name, field in program.model_fields.items()
        if field.is_required()
    }
    if "executor_token" in program.model_fields:
        local["executor_token"] = "unused"
    remote = {
        name: "services.example.com:1" if name.endswith("_address") else "http://services.example.com"
        for name in program.model_fields
        if name.endswith(("_address", "_url"))
    }
    assert len(remote) >= 3
    for name, value in remote.items():
        with pytest.raises(ValueError, match="OPTAIC_INSECURE_PLAINTEXT=true") as refused:
            program(**{**local, name: value})
        assert f"OPTAIC_{name.upper()}" in str(refused.value)
        program(**{**local, name: value, "insecure_plaintext": True})
