"""run-service's tables and the query functions over them; rules of the domain are not decided here."""

from servicekit.database import Connection

__all__ = ["Connection"]
