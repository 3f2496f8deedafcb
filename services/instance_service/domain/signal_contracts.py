"""The check whether data keeps a signal's contract, by the data's profile alone.

It refuses everything that the worker would refuse or alter when it enforces the contract, so that the next refresh
agrees. `worker.builtin.signal_guard` has the same rules, and a property test compares the two.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

_PATH = "contract"


@dataclass(frozen=True)
class Column:
    """The profile of one column; `minimum` and `maximum` ignore values that are not finite."""

    name: str
    type: str = "Float64"
    is_numeric: bool = True
    null_count: int = 0
    nan_count: int = 0
    infinite_count: int = 0
    minimum: float | None = None
    maximum: float | None = None


@dataclass(frozen=True)
class Profile:
    """The profile of one version of the data; the columns `keys` together identify each row."""

    row_count: int
    keys: Sequence[str]
    columns: Mapping[str, Column]


@dataclass(frozen=True)
class Breach:
    """A failed check: the field of the contract that demands it, and the column that breaks it."""

    path: str
    column: str
    description: str


def find_breaches(profile: Profile, contract: Mapping[str, Any], value_column: str) -> list[Breach]:
    """Return every part of the contract that the data breaks.

    Args:
        profile: the profile of the data.
        contract: the contract with its defaults filled in, see `optaic.rules.signal_contracts`.
        value_column: the column that holds the signal's values.
    """
    return [
        *_index_breaches(profile, contract["index_columns"]),
        *_value_breaches(profile, contract, value_column),
    ]


def _index_breaches(profile: Profile, index: Sequence[str]) -> Iterator[Breach]:
    path = f"{_PATH}.index_columns"
    missing = [name for name in index if name not in profile.columns]
    for name in missing:
        yield Breach(path, name, _absent(profile))
    for name in index:
        if name not in missing and (count := profile.columns[name].null_count):
            yield Breach(path, name, f"is an index column, but has {count} nulls")
    is_unique = profile.row_count <= 1 or (profile.keys and set(profile.keys) <= set(index))
    if not (missing or is_unique):
        known = f"only that {', '.join(profile.keys)} do" if profile.keys else "nor that any other columns do"
        yield Breach(path, ", ".join(index), f"it is not known that they identify a row, {known}")


def _value_breaches(profile: Profile, contract: Mapping[str, Any], name: str) -> Iterator[Breach]:
    column = profile.columns.get(name)
    if column is None:
        yield Breach(_PATH, name, f"should hold the signal's values; {_absent(profile)}")
        return
    if not column.is_numeric:
        yield Breach(_PATH, name, f"is not numeric but {column.type}")
        return
    if column.null_count and contract["nan_policy"] != "keep":
        effect = {
            "fail": "which the contract does not allow",
            "drop": "and their rows would be dropped",
            "neutral": "which would become the neutral value",
        }[contract["nan_policy"]]
        yield Breach(f"{_PATH}.nan_policy", name, f"{column.null_count} values are null, {effect}")
    if column.nan_count:
        text = f"{column.nan_count} values are NaN; write null for an unknown value"
        yield Breach(f"{_PATH}.nan_policy", name, text)
    if column.infinite_count:
        yield Breach(
            _PATH, name, f"{column.infinite_count} values are infinite; write null or a finite number"
        )
    effect = (
        "and would be set to the bound" if contract["bounds_policy"] == "winsorize" else "outside the bounds"
    )
    low, high = contract["min_value"], contract["max_value"]
    if low is not None and column.minimum is not None and column.minimum < low:
        yield Breach(f"{_PATH}.min_value", name, f"the smallest value is {column.minimum!r}, {effect}")
    if high is not None and column.maximum is not None and column.maximum > high:
        yield Breach(f"{_PATH}.max_value", name, f"the largest value is {column.maximum!r}, {effect}")


def _absent(profile: Profile) -> str:
    return f"there is no such column; the data has {', '.join(profile.columns) or 'no columns'}"
