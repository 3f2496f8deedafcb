"""The limits of texts in the contract, for code that shortens a text."""

from __future__ import annotations

from google.protobuf.message import Message

from buf.validate import validate_pb2


def longest_text(message: type[Message], field: str) -> int:
    """Return how many characters a field of a message may have.

    Raises:
        ValueError: The contract sets no limit for the field.
    """
    options = message.DESCRIPTOR.fields_by_name[field].GetOptions()
    texts = options.Extensions[validate_pb2.field].string
    if not texts.HasField("max_len"):
        raise ValueError(f"{message.DESCRIPTOR.full_name}.{field} may be of any length")
    return texts.max_len


def shorten(text: str, limit: int) -> str:
    """Return a text as it is, or its beginning and "..." if it has more characters than `limit`."""
    return text if len(text) <= limit else f"{text[: limit - 3]}..."
