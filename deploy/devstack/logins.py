"""The logins of the embedded Prefect and MLflow, and how their servers are started behind them."""

from __future__ import annotations

import hashlib
import sys
from collections.abc import Mapping
from pathlib import Path

from devstack import ports
from devstack.guarded_server import DIGEST

USER = "optaic"
_SERVER = Path(__file__).with_name("guarded_server.py")


def make_login(tool: str, secrets: Mapping[str, str]) -> str:
    """Return `user:password` of the embedded `prefect` or `mlflow`; a stack draws the password once."""
    return f"{USER}:{secrets[f'{tool}_login']}"


def split_login(login: str) -> tuple[str, str] | None:
    """Return user and password, as an HTTP client takes them; None where there is no login."""
    user, _, password = login.partition(":")
    return (user, password) if login else None


def make_argv(
    application: str, port: int, open_path: str, *, is_factory: bool = False, prepare: str = ""
) -> tuple[str, ...]:
    """Return the command that serves an application behind its login, except the path that tells whether it is healthy."""
    return (
        # -P: this folder has modules with the names of the tools.
        *(sys.executable, "-P", str(_SERVER), application, *(("--factory",) if is_factory else ())),
        *("--host", ports.HOST, "--port", str(port), "--open-path", open_path),
        *(("--prepare", prepare) if prepare else ()),
    )


def make_environment(login: str) -> dict[str, str]:
    """Return the environment by which that command knows the login; it holds the digest only."""
    return {DIGEST: hashlib.sha256(login.encode()).hexdigest()}
