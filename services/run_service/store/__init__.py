"""run-service's tables and the query functions over them; rules of the domain are not decided here."""

from sqlalchemy.ext.asyncio import AsyncConnection as Connection

__all__ = ["Connection"]  # for use cases, which hand it on and know nothing else of SQLAlchemy
