"""Give the numbers of a configuration the types that its JSON Schema names; nothing is checked here.

Protobuf's Struct carries every number as a double, so that 300 comes out as 300.0. A run gives what a schema calls an
integer to a plugin as `int`; a test that calls a plugin directly does the same with `type_numbers`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any, TypeAlias

import jsonschema
from referencing import Registry
from referencing.jsonschema import DRAFT202012

from optaic.plugins.keywords import KEYWORDS, list_named
from optaic.rules.numbers import LARGEST_WHOLE

Schema: TypeAlias = Mapping[str, Any]


def type_numbers(value: Any, schema: Schema) -> Any:
    """Return a value of JSON, with every number of the type that its schema gives it.

    A whole number is an `int` where a part of the schema that applies to it says `integer`, and where none says
    `number`, as JSON has it; it is a `float` where `number` alone is said. Any other number is a `float`. Where a
    schema has alternatives (`anyOf`, `oneOf`, `if`), those apply that the value satisfies. Without a word of a schema
    a whole number stays a `float` beyond 2^53 - 1, where the exact number is lost.

    Raises:
        referencing.exceptions.Unresolvable: a `$ref` leads nowhere.
    """
    return _Typing(schema).apply(value, [schema])


class _Typing:
    def __init__(self, schema: Schema) -> None:
        self._validator = _Validator(dict(schema), registry=Registry())
        resource = DRAFT202012.create_resource(dict(schema))
        identity = resource.id() or ""
        self._resolver = Registry().with_resource(identity, resource).resolver(identity)

    def apply(self, value: Any, schemas: list[Any]) -> Any:
        """Return the value with each number of the type that the schemas give it."""
        if isinstance(value, bool) or not isinstance(value, int | float | Mapping | list | tuple):
            return value
        parts = list(self._parts(value, schemas))
        if isinstance(value, Mapping):
            return {
                name: self.apply(each, self._of_property(value, name, parts)) for name, each in value.items()
            }
        if isinstance(value, list | tuple):
            return [self.apply(each, self._of_item(value, index, parts)) for index, each in enumerate(value)]
        return _type_number(value, {word for part in parts for word in _types(part)})

    def _parts(self, value: Any, schemas: list[Any]) -> Iterator[Schema]:
        """Yield every subschema that applies to the value itself, each once."""
        pending, seen = list(schemas), set()
        while pending:
            schema = pending.pop()
            if not isinstance(schema, Mapping) or id(schema) in seen:
                continue
            seen.add(id(schema))
            yield schema
            if "$ref" in schema:
                pending.append(self._resolver.lookup(schema["$ref"]).contents)
            pending.extend(schema.get("allOf", ()))
            for keyword in ("anyOf", "oneOf"):
                pending.extend(each for each in schema.get(keyword, ()) if self._fits(value, each))
            if "if" in schema:
                is_met = self._fits(value, schema["if"])
                pending.extend([schema["if"], schema.get("then")] if is_met else [schema.get("else")])
            if isinstance(value, Mapping):
                dependent = schema.get("dependentSchemas", {})
                pending.extend(each for name, each in dependent.items() if name in value)

    def _of_property(self, value: Mapping[str, Any], name: str, parts: list[Schema]) -> list[Any]:
        found = [each for part in parts for each in _named(part, name)]
        return found + self._unevaluated(
            "unevaluatedProperties", value, parts, lambda part: bool(_named(part, name))
        )

    def _of_item(self, value: list[Any] | tuple[Any, ...], index: int, parts: list[Schema]) -> list[Any]:
        found = [each for part in parts for each in self._placed(part, index, value[index])]
        return found + self._unevaluated(
            "unevaluatedItems", value, parts, lambda part: bool(self._placed(part, index, value[index]))
        )

    def _unevaluated(
        self, keyword: str, value: Any, parts: list[Schema], evaluates: Callable[[Schema], bool]
    ) -> list[Any]:
        """Return the schema of members that no other keyword at this level or below covers."""
        return [
            part[keyword]
            for part in parts
            if keyword in part
            and not any(
                evaluates(other) or (other is not part and keyword in other)
                for other in self._parts(value, [part])
            )
        ]

    def _placed(self, schema: Schema, index: int, item: Any) -> list[Any]:
        first = schema.get("prefixItems", [])
        found = [first[index]] if index < len(first) else [schema["items"]] if "items" in schema else []
        if "contains" in schema and self._fits(item, schema["contains"]):
            found.append(schema["contains"])
        return found

    def _fits(self, value: Any, schema: Any) -> bool:
        return bool(self._validator.evolve(schema=schema).is_valid(value))


def _type_number(value: float, words: set[str]) -> float:
    is_whole = isinstance(value, int) or value.is_integer()
    if is_whole and "integer" in words:
        return int(value)
    if is_whole and "number" not in words:
        return int(value) if isinstance(value, int) or abs(value) <= LARGEST_WHOLE else value
    try:
        return float(value)
    except OverflowError:  # no double is that large; it was never carried by one
        return value


def _types(schema: Schema) -> tuple[str, ...]:
    given = schema.get("type", ())
    return (given,) if isinstance(given, str) else tuple(given)


def _named(schema: Schema, name: str) -> list[Any]:
    """Return the schemas that an object's schema has for one property."""
    found = list_named(schema, name)
    return found or ([schema["additionalProperties"]] if "additionalProperties" in schema else [])


_Validator = jsonschema.validators.extend(jsonschema.Draft202012Validator, KEYWORDS)
