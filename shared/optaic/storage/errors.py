"""The error of a place that cannot be read or written, which a run shows as that of its store."""

from __future__ import annotations

from optaic.plugins.errors import StoreUnavailable


class StorageUnavailableError(StoreUnavailable, OSError):
    """An object store does not answer, or refuses."""

    def __init__(self, message: str) -> None:
        super().__init__(message, type=StoreUnavailable.__name__)
