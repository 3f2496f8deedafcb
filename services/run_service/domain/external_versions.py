"""Decide what a report of an external version means: a new version, or the current one again."""

from __future__ import annotations

from dataclasses import dataclass

from optaic.rules.forms import is_date
from run_service.domain.errors import invalid_fields
from servicekit.errors import FieldViolation

_DATE = "last_data_date"


@dataclass(frozen=True)
class ExternalVersion:
    """A version that another system has written, or says that it has."""

    name: str  # what the other system calls it
    last_data_date: str  # YYYY-MM-DD; empty: not known
    compute_fingerprint: str  # of the flow's configuration, which says where the data is and how it is read


def check_date(reported: ExternalVersion, *, is_judged: bool) -> None:
    """Refuse a date that does not exist, or a missing one although a freshness policy judges the data.

    Raises:
        InvalidArgumentError: INVALID_ARGUMENT, naming last_data_date.
    """
    if reported.last_data_date and not is_date(reported.last_data_date):
        raise _refusal(f"{reported.last_data_date} does not exist in the calendar; send a date, YYYY-MM-DD")
    if is_judged and not reported.last_data_date:
        raise _refusal(
            "is required, because the instance has a freshness policy; send the newest date of the data"
        )


def is_current(reported: ExternalVersion, current: ExternalVersion | None) -> bool:
    """Return whether a report names the version that the flow has: then it changes nothing.

    After a change of the configuration the same name may mean other data, or data that is read in another way.

    Raises:
        InvalidArgumentError: It names that version with another last date.
    """
    if current is None or reported.name != current.name:
        return False
    if reported.compute_fingerprint != current.compute_fingerprint:
        return False
    if reported.last_data_date and reported.last_data_date != current.last_data_date:
        before = current.last_data_date or "none"
        raise _refusal(
            f"is {reported.last_data_date}, but version {reported.name} was reported with {before}; report changed data "
            "under a new external_version"
        )
    return True


def _refusal(text: str) -> Exception:
    return invalid_fields([FieldViolation(_DATE, text, "INVALID_ARGUMENT")])
