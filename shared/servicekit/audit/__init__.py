"""Keep an audit trail: one record for each call that changes something, sealed in a chain after the commit."""

from servicekit.changes import note

__all__ = ["note"]
