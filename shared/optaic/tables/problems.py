"""The reasons why a table is not read; whoever asked for it gets reason and message, so neither names a place."""

from __future__ import annotations


class TableError(Exception):
    """A table is not read; `reason` is for programs, `field` names the part of the request that is wrong, where one is."""

    def __init__(self, reason: str, message: str, field: str = "") -> None:
        super().__init__(message)
        self.reason = reason
        self.message = message
        self.field = field


def not_readable() -> TableError:
    """Return the error of files that are damaged, or not there."""
    return TableError(
        "DATA_NOT_READABLE",
        "the data cannot be read: its files are damaged or not there any more, or its storage does not answer; retry later, or "
        "run the flow again",
    )


def not_read_here(what: str) -> TableError:
    """Return the error of data whose way of storage this program does not know."""
    return TableError(
        "STORE_NOT_READ_HERE",
        f"{what}, which the gateway does not read; read the data with the Python client on a machine that can reach it",
    )


def no_table(what: str) -> TableError:
    """Return the error of a file that holds no table."""
    return TableError(
        "NOT_A_TABLE",
        f"{what}; download the file instead (rows come from Parquet, Arrow, CSV, and JSON with a list of objects)",
    )
