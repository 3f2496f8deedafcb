"""Collect what an audited call changes, so that its audit record is written in the transaction of the change."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa

from servicekit.schema import AUDIT_COLUMNS

# Inserts the row of `take_row`.
INSERT_ROW = sa.text(
    f"insert into audit_records ({AUDIT_COLUMNS}) values (:{AUDIT_COLUMNS.replace(', ', ', :')})"  # noqa: S608 - our own names
)


@dataclass
class Change:
    """The change that an audited call makes; `make_row` converts it into a row of the table `audit_records`."""

    make_row: Callable[[Change], dict[str, Any]]
    resource: str = ""
    before: int = 0
    after: int = 0
    reason: str = ""
    is_noted: bool = False  # the open transaction changes something
    is_inserted: bool = False  # a statement of the open transaction inserts the record
    is_written: bool = False  # the record is committed


@dataclass
class Outcome:
    """The end of a transaction: whether it was committed with its change."""

    is_committed: bool = True


current_change: ContextVar[Change | None] = ContextVar("servicekit_change", default=None)


def note(resource: str, *, before: int = 0, after: int = 0, reason: str = "") -> None:
    """Say what the open transaction of an audited call changes; outside of such a call it does nothing.

    `resource` is `<collection>/<id>`, `before` and `after` are its revisions. The last note before the record is inserted
    counts.
    """
    change = current_change.get()
    if change is None or change.is_written or change.is_inserted:
        return
    change.resource, change.before, change.after, change.reason = resource, before, after, reason
    change.is_noted = True


@contextmanager
def committing() -> Iterator[Outcome]:
    """Surround a transaction: after its commit the noted change is recorded, and after a failure there is none."""
    outcome = Outcome()
    try:
        yield outcome
    except BaseException:
        outcome.is_committed = False
        raise
    finally:
        change = current_change.get()
        if change is not None and not change.is_written:
            change.is_written = outcome.is_committed and change.is_inserted
            change.is_noted = change.is_inserted = False


def take_row() -> dict[str, Any] | None:
    """Return the noted change as a row for the statement that inserts it; None if there is none to insert."""
    change = current_change.get()
    if change is None or change.is_written or change.is_inserted or not change.is_noted:
        return None
    change.is_inserted = True
    return change.make_row(change)


def take_rows(noted: Sequence[tuple[str, int, str]]) -> list[dict[str, Any]]:
    """Return a row for each of several resources (resource, new revision, reason) that one call creates, in their order.

    It returns none outside of an audited call.
    """
    change = current_change.get()
    if change is None or change.is_written or change.is_inserted:
        return []
    rows = []
    for change.resource, change.after, change.reason in noted:
        rows.append(change.make_row(change))
    change.is_noted = change.is_inserted = bool(rows)
    return rows


def discard() -> None:
    """Forget the noted change: the statement that was to insert it has inserted nothing."""
    change = current_change.get()
    if change is not None and not change.is_written:
        change.is_noted = change.is_inserted = False
