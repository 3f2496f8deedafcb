"""The files of a table, as the program that reads it may open them."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from types import TracebackType
from typing import IO, Self


@dataclass(frozen=True)
class Places:
    """Open a file by its URI, and list the names of the files in a folder; both raise OSError.

    At the end of its block it closes the files that it keeps.
    """

    open: Callable[[str], IO[bytes]]
    list: Callable[[str], Sequence[str]]
    _kept: contextlib.ExitStack = field(default_factory=contextlib.ExitStack)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._kept.close()

    def keep(self, uri: str) -> IO[bytes]:
        """Open a file until the end of the block; raises OSError."""
        return self._kept.enter_context(self.open(uri))

    def read(self, uri: str, most: int) -> bytes:
        """Return the content of a file.

        Raises:
            OSError: It cannot be read, or has more bytes.
        """
        with self.open(uri) as file:
            content = file.read(most + 1)
        if len(content) > most:
            raise OSError(f"it has more than {most} bytes")
        return content
