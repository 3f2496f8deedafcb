"""Check the operators that definitions add to the expression language, and describe their arguments."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from itertools import pairwise
from typing import Any

from instance_service.resources.conversion import json_of
from optaic.definition.v1.definition_pb2 import DEFINITION_KIND_OP, DefinitionVersion
from optaic.expression import OPERATORS, Parameter, Scope, Signature
from optaic.rules.forms import CALLED_NAME
from servicekit.errors import FieldViolation

_CHECKED = {"type", "minimum", "maximum"}  # the keywords that the arguments of a call are checked against
_SAID = {
    "$comment", "default", "deprecated", "description", "examples", "format", "readOnly", "title", "writeOnly"
}  # fmt: skip


def signature_of(version: DefinitionVersion) -> Signature:
    """Return how expressions call an operator: its name, values and numbers."""
    described = _properties(version)
    numbers = tuple(_number(name, described.get(name)) for name in version.op.numbers)
    # The operator's class decides which rows it works over; the parser does not need to know.
    return Signature(version.definition_name, Scope.ELEMENTWISE, len(version.op.values), numbers)


def op_violations(version: DefinitionVersion) -> Iterator[FieldViolation]:
    """Yield why no expression could call an operator; definitions of other kinds yield nothing."""
    path = "definition_version.op"
    if version.kind != DEFINITION_KIND_OP:
        if version.HasField("op"):
            yield FieldViolation(
                path, "only a definition of the kind OP has this field; remove it", "INVALID_ARGUMENT"
            )
        return
    name = version.definition_name
    if name in OPERATORS:  # the built-in library publishes these
        if version.HasField("op"):
            yield FieldViolation(
                "name", f"{name} is a built-in operator; choose another name", "INVALID_EXPRESSION"
            )
        return
    if not CALLED_NAME.fullmatch(name):
        text = f"{name!r} is not an operator name; use upper-case letters, digits and _"
        yield FieldViolation("name", text, "INVALID_EXPRESSION")
    if not version.HasField("op"):
        yield FieldViolation(
            path, "is required; describe how expressions call the operator", "INVALID_ARGUMENT"
        )
        return
    if not version.op.values:
        yield FieldViolation(
            f"{path}.values", "is empty; an operator takes at least one value", "INVALID_EXPRESSION"
        )
    for index, number in enumerate(version.op.numbers):
        if number in version.op.values:
            text = f"{number} is already the name of a value; choose another name"
            yield FieldViolation(f"{path}.numbers[{index}]", text, "INVALID_EXPRESSION")
    yield from _number_violations(version, path)


def _number_violations(version: DefinitionVersion, path: str) -> Iterator[FieldViolation]:
    try:
        described = _properties(version)
    except ValueError:
        return  # the check of the schema reports it
    for index, name in enumerate(version.op.numbers):
        given = described.get(name)
        if not isinstance(given, Mapping) or given.get("type") not in ("integer", "number"):
            text = f"parameters_schema has no property {name} of type integer or number; add it"
            yield FieldViolation(f"{path}.numbers[{index}]", text, "INVALID_EXPRESSION")
            continue
        where = f"definition_version.parameters_schema.properties.{name}"
        for keyword, wrong in _property_violations(name, given):
            yield FieldViolation(f"{where}.{keyword}", wrong, "INVALID_EXPRESSION")
    numbers = [_number(name, described.get(name)) for name in version.op.numbers]
    for index, (before, after) in enumerate(pairwise(numbers), 1):
        if before.default is not None and after.default is None:
            text = f"{after.name} has no default, so it must come before {before.name}, which has one"
            yield FieldViolation(f"{path}.numbers[{index}]", text, "INVALID_EXPRESSION")


def _property_violations(name: str, given: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Yield (keyword, reason) for each part of a number's schema that no call can satisfy or that is not checked."""
    for keyword in sorted(given.keys() - _CHECKED - _SAID):
        if not keyword.startswith("x-"):
            yield keyword, "is not checked in calls; use only type, minimum and maximum"
    number = _number(name, given)
    if number.minimum > number.maximum:
        yield "minimum", f"is greater than the maximum, {number.maximum:g}; lower it"
    elif "default" in given and (number.default is None or isinstance(given["default"], bool)):
        yield "default", "must be a number"
    elif number.default is not None and (wrong := number.refuse(number.default)):
        yield "default", wrong


def _properties(version: DefinitionVersion) -> Mapping[str, Any]:
    found = json_of(version.parameters_schema).get("properties")
    return found if isinstance(found, Mapping) else {}


def _number(name: str, described: object) -> Parameter:
    given = described if isinstance(described, Mapping) else {}

    def read(key: str) -> float | None:
        value = given.get(key)
        return float(value) if isinstance(value, int | float) else None

    minimum, maximum = read("minimum"), read("maximum")
    return Parameter(
        name,
        -math.inf if minimum is None else minimum,
        math.inf if maximum is None else maximum,
        given.get("type") == "integer",
        read("default"),
    )
