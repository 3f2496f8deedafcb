"""The terms by which an index finds resources; a term has the same size, however long its text is."""

from __future__ import annotations

import hashlib
import uuid


def label_term(key: str, value: str) -> str:
    """Return the index term for resources with this label."""
    text = f"{len(key)}:{key}{value}".encode()
    return str(uuid.UUID(bytes=hashlib.sha256(text).digest()[:16]))
