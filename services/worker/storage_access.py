"""The access of the worker's own process to the object store: its secret may be another one by now than when the worker started."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import ParamSpec, TypeVar

import structlog

import redaction
from optaic import storage
from worker.config import Settings

_Given = ParamSpec("_Given")
_Result = TypeVar("_Result")
_log = structlog.get_logger(__name__)


def renew_access(settings: Settings) -> None:
    """Have this process reach the object store with the secret that its file has now.

    Raises:
        OSError: the file cannot be read.
    """
    access = settings.storage
    storage.install(access)
    redaction.remember(access.secrets)


async def reach(
    settings: Settings, work: Callable[_Given, _Result], *given: _Given.args, **named: _Given.kwargs
) -> _Result:
    """Do something in a thread where all data lies, with the secret of now; where its file cannot be read, with the one before."""

    def do() -> _Result:
        if storage.is_remote(settings.data_root):
            try:
                renew_access(settings)
            except OSError as error:
                _log.warning("secret of the object store not read again", error=repr(error))
        return work(*given, **named)

    return await asyncio.to_thread(do)
