"""The arguments of one call as the parser collects them: which argument comes next, and which are missing."""

from __future__ import annotations

from dataclasses import dataclass, field

from optaic.expression.signature import GROUP, Parameter, Signature
from optaic.expression.tree import Node


@dataclass
class Arguments:
    """The arguments that a call has so far: its values, then its numbers and its group in any order."""

    signature: Signature
    values: list[Node] = field(default_factory=list)
    numbers: dict[str, float] = field(default_factory=dict)
    group: Node | None = None
    is_naming: bool = False  # after a named argument all others are named

    @property
    def count(self) -> int:
        """Return how many arguments there are."""
        return len(self.values) + len(self.numbers) + (self.group is not None)

    @property
    def wants_value(self) -> bool:
        """Return whether the next argument is a value."""
        return len(self.values) < self.signature.values

    @property
    def may_group(self) -> bool:
        """Return whether a group may follow."""
        return self.signature.has_group and self.group is None

    def next_parameter(self) -> Parameter | None:
        """Return the parameter of the next number; None if there is none."""
        return next((each for each in self.signature.parameters if each.name not in self.numbers), None)

    def find_parameter(self, name: str) -> Parameter | None:
        """Return a parameter by its name."""
        return next((each for each in self.signature.parameters if each.name == name), None)

    @property
    def open_names(self) -> list[str]:
        """Return the names that an argument may still have."""
        group = [GROUP] if self.may_group else []
        return [*(each.name for each in self.signature.parameters if each.name not in self.numbers), *group]

    @property
    def missing(self) -> str:
        """Return the name of the first argument that is missing; empty if none is."""
        names = self.signature.names[len(self.values) :]
        needed = (each.name for each in self.signature.parameters if not each.is_optional)
        return next((name for name in (*names, *needed) if name not in self.numbers), "")

    def all_values(self) -> tuple[Node, ...]:
        """Return the values, and the group after them."""
        return tuple(self.values if self.group is None else [*self.values, self.group])

    def all_numbers(self) -> dict[str, float]:
        """Return the numbers by name, in the order of the signature, with defaults filled in."""
        return self.signature.complete(self.numbers)

    def find_excess(self) -> str:
        """Return what is wrong with a number that is larger than the one that limits it; empty if nothing is."""
        numbers = self.all_numbers()
        for parameter in self.signature.parameters:
            name, largest = parameter.name, parameter.default_of
            if largest in self.numbers and numbers[name] > numbers[largest]:
                return (
                    f"{name} of {self.signature.full_usage} must be at most {largest}, which is "
                    f"{numbers[largest]:g}, not {numbers[name]:g}"
                )
        return ""
