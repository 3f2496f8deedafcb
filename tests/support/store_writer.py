"""A process of its own that writes to an object store, as a run's process does, and that tests kill.

deltalake holds Python's lock while it waits for the store, so a proxy in the same process would never answer it.
"""

from __future__ import annotations

import asyncio
import datetime as dt
import json
import os
import sys
from asyncio.subprocess import PIPE, Process
from dataclasses import asdict, dataclass
from typing import Any, Self

import numpy as np
import polars as pl

from optaic import storage
from optaic.plugins import PluginError, Store
from worker.builtin.delta_store import DeltaStore
from worker.builtin.parquet_store import ParquetStore

STORES: dict[str, type[Store]] = {"delta": DeltaStore, "parquet": ParquetStore}
LARGE = 14_000_000  # bytes of a large file: it is sent in several parts
_SECONDS = 120.0


@dataclass(frozen=True)
class Written:
    """The end of a write: the version, or the type and the text of the error."""

    version: str = ""
    error: str = ""
    message: str = ""


def make_table(close: float, *, is_large: bool = False) -> pl.DataFrame:
    """Return the table whose closes are these; a large one takes `LARGE` bytes."""
    if not is_large:
        days = [dt.date(2024, 1, day) for day in range(1, 11)]
        return pl.DataFrame({"date": days, "entity": ["a"] * 10, "close": [close] * 10})
    count = LARGE // 8
    first = dt.date(2000, 1, 1)
    every = pl.date_range(first, first + dt.timedelta(days=count // 1000), eager=True)
    return pl.DataFrame(
        {
            "date": every.gather(np.arange(count) // 1000),
            "entity": pl.Series(np.arange(count) % 1000).cast(pl.String),
            "close": np.random.default_rng(int(close)).random(count),
        }
    )


class StoreWriter:
    """`async with StoreWriter() as writer`: writes one after the other."""

    def __init__(self) -> None:
        self._process: Process | None = None

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.kill()

    async def start(self) -> None:
        """Start the process."""
        self._process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "support.store_writer"),
            env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
            stdin=PIPE,
            stdout=PIPE,
        )

    async def kill(self) -> None:
        """End it as a crash would."""
        assert self._process is not None
        if self._process.returncode is None:
            self._process.kill()
        await self._process.wait()

    async def write(
        self,
        access: storage.Access,
        kind: str,
        uri: str,
        close: float,
        base: str | None = None,
        *,
        is_large: bool = False,
    ) -> Written:
        """Write a table by a store, or a file where `kind` is `file`; it ends in any case.

        Raises:
            ConnectionError: the process was killed.
        """
        assert self._process is not None
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        order = [asdict(access), kind, uri, close, base, is_large]
        self._process.stdin.write(json.dumps(order).encode() + b"\n")
        async with asyncio.timeout(_SECONDS):
            answer = await self._process.stdout.readline()
        if not answer:
            raise ConnectionError("the writer was killed")
        return Written(**json.loads(answer))


def _write(kind: str, uri: str, close: float, base: str | None, *, is_large: bool) -> str:
    if kind == "file":
        storage.write(uri, np.random.default_rng(int(close)).bytes(LARGE) if is_large else b"small")
        return "written"
    return STORES[kind]().write(make_table(close, is_large=is_large), base, uri).physical_version


def main() -> None:
    """Do what comes, line by line."""
    for line in sys.stdin:
        given: list[Any] = json.loads(line)
        access, kind, uri, close, base, is_large = given
        storage.install(storage.Access(**access))
        try:
            written = Written(version=_write(kind, uri, close, base, is_large=is_large))
        except PluginError as error:
            written = Written(error=error.type, message=str(error))
        print(json.dumps(asdict(written)), flush=True)  # noqa: T201 - the answer


if __name__ == "__main__":
    main()
