"""The tables and queries of run-service; the caller opens the transaction."""

from servicekit.database import Connection

__all__ = ["Connection"]
