"""Check the keywords of JSON Schema in our own way: patterns are RE2's, multiples are decimal, alternatives keep no errors.

instance-service judges configurations by them, and a run types numbers by them: both find the same parts of a schema.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import jsonschema

from optaic.plugins.patterns import is_match
from optaic.rules.numbers import is_multiple


def _pattern(_validator: Any, pattern: str, instance: object, _schema: Mapping[str, Any]) -> Iterator[Any]:
    if isinstance(instance, str) and not is_match(pattern, instance):
        yield jsonschema.ValidationError("does not match")


def _pattern_properties(
    validator: Any, patterns: Mapping[str, Any], instance: object, _schema: Mapping[str, Any]
) -> Iterator[Any]:
    if isinstance(instance, Mapping):
        for pattern, subschema in patterns.items():
            for name, value in instance.items():
                if is_match(pattern, name):
                    yield from validator.descend(value, subschema, path=name, schema_path=pattern)


def _additional_properties(
    validator: Any, rest: object, instance: object, schema: Mapping[str, Any]
) -> Iterator[Any]:
    if isinstance(instance, Mapping):
        extras = list_extras(schema, instance)
        if rest is False and extras:
            yield jsonschema.ValidationError("not known")
        elif rest is not False:
            for name in extras:
                yield from validator.descend(instance[name], rest, path=name)


def _multiple_of(
    _validator: Any, factor: float, instance: object, _schema: Mapping[str, Any]
) -> Iterator[Any]:
    if isinstance(instance, bool) or not isinstance(instance, int | float):
        return
    if not is_multiple(instance, factor):
        yield jsonschema.ValidationError("is not a multiple")


def _any_of(validator: Any, alternatives: Any, instance: object, _schema: object) -> Iterator[Any]:
    for each in alternatives:
        if _fits(validator, each, instance):
            return
    yield jsonschema.ValidationError("fits none of the alternatives")


def _one_of(validator: Any, alternatives: Any, instance: object, _schema: object) -> Iterator[Any]:
    count = 0
    for each in alternatives:
        count += (
            validator.evolve(schema=each).is_valid(instance) if count else _fits(validator, each, instance)
        )
    if count != 1:
        yield jsonschema.ValidationError("does not fit exactly one of the alternatives")


def _fits(validator: Any, schema: Any, instance: object) -> bool:
    """Return whether a value fits an alternative.

    It looks at all of the value, which finds the expressions in it. It keeps no errors: the library keeps them all, and they
    may be very many.
    """
    fits = True
    for _ in validator.descend(instance, schema):
        fits = False
    return fits


def list_named(schema: Mapping[str, Any], name: str) -> list[Any]:
    """Return the schemas that the properties and patterns of an object's schema have for one name."""
    properties = schema.get("properties", {})
    found = [properties[name]] if name in properties else []
    patterns = schema.get("patternProperties", {})
    found.extend(each for pattern, each in patterns.items() if is_match(pattern, name))
    return found


def list_extras(schema: Mapping[str, Any], instance: Mapping[str, Any]) -> list[str]:
    """Return the names of an object that neither a property nor a pattern of its schema speaks of."""
    known, patterns = schema.get("properties", {}), schema.get("patternProperties", {})
    return [
        name
        for name in instance
        if name not in known and not any(is_match(pattern, name) for pattern in patterns)
    ]


KEYWORDS: Mapping[str, Callable[..., Iterator[Any]]] = {
    "pattern": _pattern,
    "patternProperties": _pattern_properties,
    "additionalProperties": _additional_properties,
    "multipleOf": _multiple_of,
    "anyOf": _any_of,
    "oneOf": _one_of,
}
