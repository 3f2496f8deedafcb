"""Write the call that an experiment previews: an operator or a macro with the arguments of a configuration."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from optaic.plugins import InvalidConfig
from optaic.plugins.words import describe_value
from optaic.rules.numbers import LARGEST_WHOLE


@dataclass(frozen=True)
class Slot:
    """An argument that a call may have."""

    name: str
    is_required: bool = True
    default: object = None  # what stands for it where the configuration says nothing
    has_keyword: bool = False  # it is given by name, so that others before it may be left out


@dataclass(frozen=True)
class Argument:
    """An argument as it is written."""

    name: str
    text: str
    keyword: str = ""  # with its equality sign; empty where it is given by place


@dataclass(frozen=True)
class Call:
    """A call by the name that the operator or macro has in the library of the expression."""

    name: str
    arguments: tuple[Argument, ...]

    @property
    def text(self) -> str:
        """Return the call as an expression."""
        return f"{self.name}({', '.join(each.keyword + each.text for each in self.arguments)})"

    def find_field(self, position: int) -> str:
        """Return the field that the character at a position of the text comes from; empty for what no field says."""
        return next((f"config.{name}" for name, span in self._spans() if position in span), "")

    def _spans(self) -> Iterator[tuple[str, range]]:
        start = len(self.name) + 1
        for each in self.arguments:
            end = start + len(each.keyword) + len(each.text)
            yield each.name, range(start, end)
            start = end + 2


def write_call(name: str, slots: Sequence[Slot], config: Mapping[str, object]) -> Call:
    """Return the call with the arguments of a configuration.

    Raises:
        InvalidConfig: an argument is missing, unknown, or neither a number nor an expression.
    """
    known = [slot.name for slot in slots]
    if strays := sorted(set(config) - set(known)):
        raise InvalidConfig(
            f"config.{strays[0]}: {name} has no such argument; it takes {', '.join(known) or 'none'}; remove it"
        )
    arguments = []
    for slot in slots:
        value = config.get(slot.name, slot.default)
        if value is not None:
            keyword = f"{slot.name}=" if slot.has_keyword else ""
            arguments.append(Argument(slot.name, _write(slot.name, value), keyword))
        elif slot.is_required:
            raise InvalidConfig(
                f"config.{slot.name}: is required by {name}; set it to a number or an expression"
            )
    return Call(name, tuple(arguments))


def _write(name: str, value: object) -> str:
    if isinstance(value, str):
        return value
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise InvalidConfig(
            f"config.{name}: must be a number or an expression, not {describe_value(value)}; change it"
        )
    is_whole = isinstance(value, float) and value.is_integer() and abs(value) <= LARGEST_WHOLE
    return str(int(value)) if is_whole else repr(value)
