"""Saved expressions that may be called by name; they become part of the tree that calls them, so nothing runs them."""

from __future__ import annotations

from dataclasses import dataclass

from optaic.rules.forms import CALLED_NAME, PARAMETER_NAME


@dataclass(frozen=True)
class Macro:
    """An expression over its parameters.

    A call gives each parameter an expression; what stands where an operator takes a number must be given a number.
    """

    name: str  # upper case
    parameters: tuple[str, ...]
    text: str

    @property
    def usage(self) -> str:
        """Return the call as users write it."""
        return f"{self.name}({', '.join(self.parameters)})"

    @property
    def mistake(self) -> str:
        """Return what is wrong with the name or the parameters; empty if nothing is."""
        if not CALLED_NAME.fullmatch(self.name):
            return f"a macro's name must have upper-case letters, digits and _ only, not {self.name!r}"
        for parameter in self.parameters:
            if not PARAMETER_NAME.fullmatch(parameter):
                return (
                    f"a parameter's name must have lower-case letters, digits and _ only, not {parameter!r}"
                )
        if len(set(self.parameters)) < len(self.parameters):
            return "two parameters have the same name; rename one"
        return ""
