"""Read tables on a thread of their own.

What reads them, storage and plugins, is loaded there on first use: it is slow to load, and most programs read no table.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from optaic.client.selection import Fetch, FetchRows, Find, Selection, Stored
from optaic.run.v1 import run_pb2

if TYPE_CHECKING:
    import polars as pl


async def read_stored(stored: Stored, wanted: Selection, find: Find, fetch: FetchRows) -> pl.DataFrame:
    """Return rows of a version through its store and accessor; `fetch` gives them where their place is out of reach.

    Raises:
        OptaicError: They are not installed here, or cannot give what is wanted.
    """

    def read() -> pl.DataFrame:
        from optaic.client import reading  # noqa: PLC0415 - the reason is above

        return reading.read_stored(stored, wanted, find, fetch)

    return await asyncio.to_thread(read)


async def read_artifact(
    name: str, run: run_pb2.Run, artifact: str, wanted: Selection, find: Find, fetch: Fetch
) -> pl.DataFrame:
    """Return rows of a Parquet file that a run has written; `fetch` gives it where its place is out of reach.

    Raises:
        ArtifactCorruptError: It is not the file that the run wrote.
        OptaicError: It cannot be read, or has not what is wanted.
    """

    def read() -> pl.DataFrame:
        from optaic.client import reading  # noqa: PLC0415 - the reason is above

        return reading.read_artifact(name, run, artifact, wanted, find, fetch)

    return await asyncio.to_thread(read)
