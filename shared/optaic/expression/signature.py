"""Define what the parser knows of an operator: its scope and its arguments, but not its computation."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from optaic.rules.numbers import LARGEST_WHOLE


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
    default: float | None = None  # None: it must be given

    def refuse(self, value: float) -> str:
        """Return why the value is not allowed; empty when it is."""
        if self.is_integer and not value.is_integer():
            return f"must be a whole number, not {value:g}"
        if self.is_integer and abs(value) > LARGEST_WHOLE:
            return f"must be between -{LARGEST_WHOLE} and {LARGEST_WHOLE}; larger numbers are not exact"
        if not self.minimum <= value <= self.maximum:
            return f"must be between {self.minimum:g} and {self.maximum:g}, not {value:g}"
        return ""


@dataclass(frozen=True)
class Signature:
    """The signature of an operator: `NAME(value, ..., parameter, ...)`."""

    name: str  # upper case
    scope: Scope
    values: int = 1  # how many sub-expressions come first
    parameters: tuple[Parameter, ...] = ()
    summary: str = ""

    @property
    def usage(self) -> str:
        """Return the call as users write it."""
        values = (
            ["x", "y", "z"][: self.values]
            if self.values <= len("xyz")
            else [f"x{i}" for i in range(self.values)]
        )
        numbers = [p.name if p.default is None else f"{p.name}={p.default:g}" for p in self.parameters]
        return f"{self.name}({', '.join([*values, *numbers])})"

    @property
    def fewest(self) -> int:
        """Return the least number of arguments."""
        return self.values + sum(parameter.default is None for parameter in self.parameters)

    @property
    def most(self) -> int:
        """Return the greatest number of arguments."""
        return self.values + len(self.parameters)
