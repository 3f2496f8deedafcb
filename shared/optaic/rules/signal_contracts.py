"""The defaults of a signal's contract."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from optaic.rules.columns import KEYS


@dataclass(frozen=True)
class Defaults:
    """The values of the fields that a `SignalContract` leaves out; enums as words."""

    min_value: float | None = None
    max_value: float | None = None
    neutral_value: float = 0.0
    nan_policy: str = "keep"
    bounds_policy: str = "reject"
    index_columns: tuple[str, ...] = KEYS


# Fingerprints and the worker read the same defaults. A released default never changes: docs/decisions.md says why.
DEFAULTS = Defaults()


def complete_contract(given: Mapping[str, Any]) -> dict[str, Any]:
    """Return a contract with its defaults filled in; writing a default explicitly gives the same result."""
    defaults = asdict(DEFAULTS) | {"index_columns": [*DEFAULTS.index_columns]}
    return defaults | {name: value for name, value in given.items() if value not in ("", [])}
