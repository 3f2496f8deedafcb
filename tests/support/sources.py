"""What the sources of a test may read: its own temporary files, unless the test says otherwise."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from typing import Any

import optaic.plugins.secrets as plugin_secrets
from devstack.postgres import Postgres
from worker.sources import access
from worker.sources.access import SourceAccess
from worker.sources.policy import SourcePolicy

FOLDERS = (tempfile.gettempdir(),)


@contextmanager
def allowed(
    secrets: Mapping[str, str] | None = None,
    bindings: Mapping[str, Sequence[str]] | None = None,
    **policy: Any,
) -> Iterator[SourceAccess]:
    """Let this process read by a policy, with these secrets for its sources, within the block."""
    before = access.current()
    found = SourceAccess(
        SourcePolicy(**{"roots": FOLDERS, "secrets": bindings or {}, **policy}), secrets or {}
    )
    access.install(found)
    try:
        yield found
    finally:
        access.install(before)
        plugin_secrets.provide(None, {})


def allow_server(server: Postgres, **secrets: str) -> AbstractContextManager[SourceAccess]:
    """Let this process read a database server on this machine, with secrets that are bound to it."""
    bindings = {name: [f"postgresql://{server.host}"] for name in secrets}
    return allowed(secrets, bindings, private_hosts=[server.host])
