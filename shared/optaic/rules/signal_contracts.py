"""What a signal's contract promises where it says nothing."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from optaic.rules.columns import KEYS


@dataclass(frozen=True)
class Defaults:
    """The fields of `SignalContract` where a contract leaves them out; enums as words."""

    min_value: float | None = None
    max_value: float | None = None
    neutral_value: float = 0.0
    nan_policy: str = "keep"
    bounds_policy: str = "reject"
    index_columns: tuple[str, ...] = KEYS


# Fingerprints and the worker read the same defaults: one that changes makes stale what relies on it.
DEFAULTS = Defaults()


def complete_contract(given: Mapping[str, Any]) -> dict[str, Any]:
    """Return a contract with its defaults filled in; saying a default changes nothing."""
    defaults = asdict(DEFAULTS) | {"index_columns": [*DEFAULTS.index_columns]}
    return defaults | {name: value for name, value in given.items() if value not in ("", [])}
