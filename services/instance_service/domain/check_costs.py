"""The steps that a check of a config against a JSON Schema takes, so that no check takes long."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

MOST_STEPS = 300_000
MOST_HOPS = 20_000  # references that one config may follow
# Keywords that apply their schema to every member of a value.
_FOR_EACH = frozenset(
    {"items", "contains", "propertyNames", "additionalProperties", "patternProperties"}
    | {"unevaluatedItems", "unevaluatedProperties"}
)
_READS_ALL = frozenset({"uniqueItems", "const", "enum"})  # they compare values with all that is in them
_CHARACTERS_OF_A_STEP = 10
_KEYWORDS_OF_A_STEP = 4
_INSTRUCTIONS_OF_A_STEP = 8


class TooManyStepsError(Exception):
    """A check takes more steps than it may."""


class TooManyHopsError(RecursionError):
    """A config follows more references than any sensible schema has."""


class Steps:
    """The steps of one check."""

    def __init__(self) -> None:
        self._steps = MOST_STEPS
        self._hops = MOST_HOPS
        self._widths: dict[int, int] = {}

    def take(self, keyword: str, value: Any, instance: object) -> None:
        """Count what it takes to check a value by one keyword, without what the subschemas count themselves.

        Raises:
            TooManyStepsError: No more steps are left.
            TooManyHopsError: No more references may be followed.
        """
        if keyword == "$ref":
            self._hops -= 1
            if self._hops < 0:
                raise TooManyHopsError
        self._spend(self._cost(keyword, value, instance))

    def take_pattern(self, instructions: int) -> None:
        """Count what it takes to compile a pattern.

        Raises:
            TooManyStepsError: No more steps are left.
        """
        self._spend(instructions // _INSTRUCTIONS_OF_A_STEP)

    def _spend(self, steps: int) -> None:
        self._steps -= steps
        if self._steps < 0:
            raise TooManyStepsError

    def _cost(self, keyword: str, value: Any, instance: object) -> int:
        width = 1
        if isinstance(value, Mapping | list):
            width += self._width(value)
        if isinstance(instance, str):
            return width + len(instance) // _CHARACTERS_OF_A_STEP
        if not isinstance(instance, Mapping | list):
            return width
        if keyword in _READS_ALL:
            return width + _count(instance)
        return width * (1 + len(instance)) if keyword in _FOR_EACH else width

    def _width(self, value: Mapping[str, Any] | list[Any]) -> int:
        """Return the steps to walk over the keywords of the subschemas of a keyword; it is remembered."""
        key = id(value)
        if key not in self._widths:
            parts = value.values() if isinstance(value, Mapping) else value
            keywords = len(value) + sum(len(part) for part in parts if isinstance(part, Mapping | list))
            self._widths[key] = keywords // _KEYWORDS_OF_A_STEP
        return self._widths[key]


def _count(value: object) -> int:
    """Return how many values lie in a value, itself included."""
    count, pending = 0, [value]
    while pending:
        node = pending.pop()
        count += 1
        if isinstance(node, Mapping):
            pending.extend(node.values())
        elif isinstance(node, list):
            pending.extend(node)
    return count
