"""Read the values that options are given as text."""

from __future__ import annotations

from collections.abc import Iterable


def parse_labels(texts: Iterable[str]) -> dict[str, str]:
    """Return the labels that are given as name=value.

    Raises:
        ValueError: A text has another form, or a name is given twice.
    """
    labels: dict[str, str] = {}
    for text in texts:
        name, separator, value = text.partition("=")
        if not separator or not name:
            raise ValueError(f"label {text!r} must have the form name=value")
        if name in labels:
            raise ValueError(f"label {name!r} is given twice; pass it once")
        labels[name] = value
    return labels
