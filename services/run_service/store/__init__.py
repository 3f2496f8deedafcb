"""The tables of run-service and the queries over them; they decide no rule of the domain."""

from servicekit.database import Connection

__all__ = ["Connection"]
