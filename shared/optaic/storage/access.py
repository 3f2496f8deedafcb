"""The access of this process to an object store: its address and the credential; opens nothing."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Mapping
from contextvars import ContextVar
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any, Self

PREFIX = "OPTAIC_S3_"
_RETRIES = 100  # more than fit into the patience, which decides
_CONNECT_SECONDS = 5.0


@dataclass(frozen=True)
class Access:
    """The address of an S3 server and the credential for it; what is empty, its library finds as it does everywhere."""

    endpoint: str = ""
    region: str = ""
    is_path_style: bool = True
    access_key_id: str = ""
    secret_access_key: str = field(default="", repr=False)
    session_token: str = field(default="", repr=False)
    timeout_seconds: float = 30.0  # of one request
    patience_seconds: float = 60.0  # in which a request is tried again

    @classmethod
    def from_environment(cls, environment: Mapping[str, str]) -> Self:
        """Return what the variables say that begin with `OPTAIC_S3_`.

        Raises:
            OSError: the file of the secret cannot be read.
            ValueError: a number is none.
        """
        file = environment.get(f"{PREFIX}SECRET_ACCESS_KEY_FILE")
        given = {name.removeprefix(PREFIX): value for name, value in environment.items() if value}
        seconds = {
            f"{name}_seconds": float(given[f"{name.upper()}_SECONDS"])
            for name in ("timeout", "patience")
            if f"{name.upper()}_SECONDS" in given
        }
        return cls(
            endpoint=given.get("ENDPOINT", ""),
            region=given.get("REGION", ""),
            is_path_style=given.get("PATH_STYLE", "true").lower() in {"true", "1", "yes", "on"},
            access_key_id=given.get("ACCESS_KEY_ID", ""),
            secret_access_key=given.get("SECRET_ACCESS_KEY") or read_secret(Path(file) if file else None),
            session_token=given.get("SESSION_TOKEN", ""),
            **seconds,
        )

    @property
    def secrets(self) -> tuple[str, ...]:
        """The secrets, which must never be shown."""
        return tuple(filter(None, (self.secret_access_key, self.session_token)))

    @property
    def options(self) -> dict[str, str]:
        """The options of the libraries below: they share the names."""
        named = {
            "aws_endpoint": self.endpoint,
            "aws_region": self.region or ("us-east-1" if self.endpoint else ""),
            "aws_access_key_id": self.access_key_id,
            "aws_secret_access_key": self.secret_access_key,
            "aws_session_token": self.session_token,
        }
        return {
            **{name: value for name, value in named.items() if value},
            "aws_virtual_hosted_style_request": str(not self.is_path_style).lower(),
        }

    @property
    def client_options(self) -> dict[str, str]:
        """The options of their HTTP client."""
        plain = {"allow_http": "true"} if self.endpoint.startswith("http://") else {}
        return {
            **plain,
            "timeout": f"{self.timeout_seconds:g}s",
            "connect_timeout": f"{min(_CONNECT_SECONDS, self.timeout_seconds):g}s",
        }

    @property
    def retries(self) -> dict[str, Any]:
        """The limits within which a request is tried again."""
        return {"max_retries": _RETRIES, "retry_timeout": timedelta(seconds=self.patience_seconds)}

    @property
    def table_options(self) -> dict[str, str]:
        """The same, as deltalake takes it."""
        return {
            **self.options,
            **self.client_options,
            "max_retries": str(_RETRIES),
            "retry_timeout": f"{self.patience_seconds:g}s",
        }


def read_secret(file: Path | None) -> str:
    """Return the secret in a file, without the end of its line; of no file, none.

    Raises:
        OSError: it cannot be read.
    """
    return "" if file is None else file.read_text(encoding="utf-8").rstrip("\r\n")


_installed: Access | None = None
_found: ContextVar[Access | None] = ContextVar("found", default=None)


def install(access: Access | None) -> None:
    """Have this process reach its object store so, whatever the environment says; None: as the environment says."""
    global _installed  # noqa: PLW0603 - a process serves one tenant
    _installed = access


def installed() -> Access | None:
    """Return what was installed."""
    return _installed


@contextlib.contextmanager
def found(variables: Mapping[str, str]) -> Iterator[None]:
    """Have a block reach the object store as these variables say, beside those of the environment; none change nothing.

    Raises:
        ValueError: a number of the environment is none.
    """
    token = _found.set(Access.from_environment({**os.environ, **variables}) if variables else None)
    try:
        yield
    finally:
        _found.reset(token)


def current() -> Access:
    """Return what was installed; without that, what was found for this block, or else what the environment says."""
    return _installed or _found.get() or Access.from_environment(os.environ)
