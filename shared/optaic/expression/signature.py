"""Define what the parser knows of an operator: its scope and its arguments, but not its computation."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import TypeAlias

from optaic.rules.numbers import LARGEST_WHOLE

GROUP = "group"
# Of a call's numbers: how many earlier sessions its result may depend on; None: on all.
WarmUp: TypeAlias = Callable[[Sequence[float]], int | None]


class Scope(StrEnum):
    """Over which rows an operator works."""

    ELEMENTWISE = "elementwise"  # each row alone
    TIME_SERIES = "time_series"  # one entity, over sessions in date order
    CROSS_SECTION = "cross_section"  # one date, over the entities present


@dataclass(frozen=True)
class Parameter:
    """A number literal that follows the values."""

    name: str
    minimum: float
    maximum: float
    is_integer: bool = True
    default: float | None = None  # None: it must be given, unless another one is the default
    default_of: str = ""  # the earlier parameter that is the default, and the largest value

    @property
    def is_optional(self) -> bool:
        """Return whether a call may omit the number."""
        return self.default is not None or bool(self.default_of)

    def refuse(self, value: float) -> str:
        """Return why the value is not allowed; empty when it is."""
        if self.is_integer and not value.is_integer():
            return f"must be a whole number, not {value:g}"
        if self.is_integer and abs(value) > LARGEST_WHOLE:
            return f"must be between -{LARGEST_WHOLE} and {LARGEST_WHOLE}; larger numbers are not exact"
        if not self.minimum <= value <= self.maximum:
            return f"must be between {self.minimum:g} and {self.maximum:g}, not {value:g}"
        return ""


def _unbounded(_: Sequence[float]) -> int | None:
    return None


def _no_sessions(_: Sequence[float]) -> int | None:
    return 0


@dataclass(frozen=True)
class Signature:
    """The signature of an operator: `NAME(value, ..., group, parameter, ...)`."""

    name: str  # upper case
    scope: Scope
    values: int = 1  # how many sub-expressions come first
    parameters: tuple[Parameter, ...] = ()
    summary: str = ""
    value_names: tuple[str, ...] = ()  # where x, y, z say too little
    has_group: bool = False  # whether a column may say which entities are compared with each other
    own_warm_up: WarmUp | None = field(default=None, compare=False)

    @property
    def names(self) -> tuple[str, ...]:
        """Return the names of the values."""
        if self.value_names:
            return self.value_names
        return tuple(
            "xyz"[: self.values] if self.values <= len("xyz") else map("x{}".format, range(self.values))
        )

    @property
    def usage(self) -> str:
        """Return the call as users write it, without what has no number as its default."""
        numbers = [
            p.name if p.default is None else f"{p.name}={p.default:g}"
            for p in self.parameters
            if not p.default_of
        ]
        return f"{self.name}({', '.join([*self.names, *numbers])})"

    @property
    def full_usage(self) -> str:
        """Return the call with all its arguments."""
        numbers = [
            f"{p.name}={p.default_of or format(p.default, 'g')}" if p.is_optional else p.name
            for p in self.parameters
        ]
        group = [f"{GROUP}=none"] if self.has_group else []
        return f"{self.name}({', '.join([*self.names, *numbers, *group])})"

    @property
    def fewest(self) -> int:
        """Return the least number of arguments."""
        return self.values + sum(not parameter.is_optional for parameter in self.parameters)

    def warm_up(self, parameters: Sequence[float]) -> int | None:
        """Return how many earlier sessions a call's result may depend on; None if on all."""
        if self.own_warm_up is not None:
            return self.own_warm_up(parameters)
        return (_unbounded if self.scope is Scope.TIME_SERIES else _no_sessions)(parameters)

    def complete(self, given: Mapping[str, float]) -> dict[str, float]:
        """Return the numbers of a call by name, with the defaults of those that it omits."""
        numbers: dict[str, float] = {}
        for parameter in self.parameters:
            default = numbers[parameter.default_of] if parameter.default_of else parameter.default
            numbers[parameter.name] = given.get(parameter.name, default or 0.0)
        return numbers
