"""Check the parameters of a run."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from datetime import date

from optaic.rules.forms import read_date
from optaic.rules.run_parameters import END, PARAMETERS, RANGE, START, SWITCHES
from run_service.domain.errors import invalid_fields
from servicekit.errors import FieldViolation


def check_parameters(flow_kind: str, parameters: Mapping[str, object], *, is_full: bool) -> None:
    """Refuse parameters that the flow does not have, or that are malformed.

    Configuration belongs to the instance: lineage-service does not see what a run alone is given.

    Raises:
        InvalidArgumentError: INVALID_ARGUMENT, with a violation for each parameter.
    """
    known = PARAMETERS.get(flow_kind, ())
    violations = []
    dates: dict[str, date] = {}
    for name, value in sorted(parameters.items()):
        if name not in known:
            allowed = f"it has {', '.join(known)}" if known else "it has none"
            text = f"is not a parameter of a {flow_kind} flow; {allowed}; configure the instance instead"
            violations.append(FieldViolation(f"parameters.{name}", text, "INVALID_ARGUMENT"))
            continue
        if name in SWITCHES:
            if text := _check_switch(value, is_full=is_full and not is_partial_range(parameters)):
                violations.append(FieldViolation(f"parameters.{name}", text, "INVALID_ARGUMENT"))
            continue
        try:
            dates[name] = _read_date(value)
        except ValueError:
            text = (
                f"must be a date, YYYY-MM-DD; it is {value!r}"
                if isinstance(value, str)
                else "must be a string with a date, YYYY-MM-DD"
            )
            violations.append(FieldViolation(f"parameters.{name}", text, "INVALID_ARGUMENT"))
    if START in dates and END in dates and dates[START] > dates[END]:
        violations.append(
            FieldViolation(f"parameters.{START}", f"must not be after parameters.{END}", "INVALID_ARGUMENT")
        )
    if violations:
        raise invalid_fields(violations)


def _read_date(value: object) -> date:
    """Read a date; workers read it in the same way.

    Raises:
        ValueError: It is not a date.
    """
    if not isinstance(value, str):
        raise ValueError(value)  # noqa: TRY004 - the caller knows one error
    return read_date(value)


def _check_switch(value: object, *, is_full: bool) -> str:
    if not isinstance(value, bool):
        return "must be true or false"
    return (
        ""
        if is_full or not value
        else "needs mode FULL and no parameters.start or parameters.end: the types are pinned from all data"
    )


def is_partial_range(parameters: Collection[str]) -> bool:
    """Return whether a run with these parameters computes only a range of dates."""
    return any(name in parameters for name in RANGE)
