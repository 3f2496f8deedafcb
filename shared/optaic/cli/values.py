"""Read the values that options are given as text."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, datetime

import typer

from optaic.client import AsyncClient
from optaic.client.moments import MomentLike
from optaic.rules.forms import is_id

NO_ZONE = "without a zone: UTC"
_TIME = f"a time such as 2026-11-29T12:00Z ({NO_ZONE})"
MOMENT = f"a lineage revision, {_TIME}, or the id of a run, which means what that run saw"


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


def parse_time(text: str) -> datetime:
    """Return the time that an ISO 8601 text says; without a zone it is in UTC.

    Raises:
        typer.BadParameter: It says none.
    """
    try:
        return _time(text)
    except ValueError as error:
        raise typer.BadParameter(str(error)) from None


async def parse_moment(client: AsyncClient, text: str) -> MomentLike | None:
    """Return the moment that a text says: a revision, a time or a run; of nothing: none.

    Raises:
        ValueError: It says none.
        NotFoundError: There is no such run.
    """
    if not text:
        return None
    if text.isdecimal():
        return int(text)
    if is_id(text):
        return await client.runs.get(text)
    try:
        return _time(text)
    except ValueError:
        raise ValueError(f"{text!r} is no moment; give {MOMENT}") from None


def _time(text: str) -> datetime:
    error = ValueError(f"{text!r} is no time; give {_TIME}")
    if text.isdecimal():  # a moment of digits only is a revision
        raise error
    try:
        found = datetime.fromisoformat(text)
        return (found if found.tzinfo else found.replace(tzinfo=UTC)).astimezone(UTC)
    except (ValueError, OverflowError):
        raise error from None
