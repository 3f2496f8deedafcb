"""The search for the places of a config that hold secrets, by its schema and by property names."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any
from urllib.parse import unquote

from instance_service.domain.schema_bounds import Path
from redaction import HIDDEN, PREFIX, SHORTEST, is_reference, is_secret_name

IsMatch = Callable[[str, str], bool]

PASSWORD = "password"  # noqa: S105 - the name of a format
_MOST_STEPS = 100_000
_ALTERNATIVES = ("allOf", "anyOf", "oneOf")
_SAME_VALUE = ("not", "if", "then", "else")
_OF_MEMBERS = ("properties", "patternProperties", "additionalProperties", "unevaluatedProperties")
_OF_ITEMS = ("prefixItems", "items", "contains", "unevaluatedItems")
_CONTAINERS = (*_OF_MEMBERS, *_OF_ITEMS)
_VALUES = ("default", "const")
_LISTS_OF_VALUES = ("enum", "examples")


def is_marked(schema: object) -> bool:
    """Return whether a schema marks its value as a secret, which must be a reference."""
    return isinstance(schema, Mapping) and (
        schema.get("writeOnly") is True or schema.get("format") == PASSWORD
    )


def is_secret(value: object) -> bool:
    """Return whether the value at a marked place holds only references, or nothing."""
    if isinstance(value, Mapping):
        return all(map(is_secret, value.values()))
    if isinstance(value, list):
        return all(map(is_secret, value))
    return value is None or isinstance(value, bool) or (isinstance(value, str) and is_reference(value))


def clear_values(schema: object, at: Path = ()) -> Iterator[Path]:
    """Yield the places where a schema itself contains a secret in clear text: a default, constant or example of a secret."""
    if isinstance(schema, list):
        for index, each in enumerate(schema):
            yield from clear_values(each, (*at, index))
    if not isinstance(schema, Mapping):
        return
    for key, value in schema.items():
        given = value if key in _LISTS_OF_VALUES and isinstance(value, list) else [value]
        if key not in {*_VALUES, *_LISTS_OF_VALUES}:
            yield from clear_values(value, (*at, key))
        elif is_marked(schema) and not all(map(is_secret, given)):
            yield (*at, key)


def secret_paths(schema: Mapping[str, Any], config: Mapping[str, Any], is_match: IsMatch) -> set[Path]:
    """Return the places of a config that may hold secrets, in valid and invalid configs."""
    search = _Search(schema, is_match)
    search.by_schema(schema, config, ())
    search.by_name(config, ())
    return {()} if search.steps > _MOST_STEPS else search.found


def texts_at(config: Mapping[str, Any], paths: Iterable[Path]) -> Iterator[str]:
    """Yield the texts at these places; the same texts may appear elsewhere in the config."""
    for path in paths:
        value: Any = config
        for part in path:
            value = value[part]
        if isinstance(value, str) and len(value) >= SHORTEST and not is_reference(value):
            yield value


def hide(text: str, secrets: Iterable[str]) -> str:
    """Return a text in which these secrets are hidden."""
    for secret in secrets:
        text = text.replace(secret, HIDDEN)
    return text


class _Search:
    def __init__(self, root: Mapping[str, Any], is_match: IsMatch) -> None:
        self._root = root
        self._is_match = is_match
        self._seen: set[tuple[int, Path]] = set()
        self.found: set[Path] = set()
        self.steps = 0

    def by_name(self, value: object, at: Path) -> None:
        self.steps += 1
        if self.steps > _MOST_STEPS:
            return
        if isinstance(value, Mapping):
            for name, each in value.items():
                if is_secret_name(name):
                    self.found.add((*at, name))
                else:
                    self.by_name(each, (*at, name))
        elif isinstance(value, list):
            for index, each in enumerate(value):
                if isinstance(each, Mapping | list):
                    self.by_name(each, (*at, index))

    def by_schema(self, schema: object, value: object, at: Path) -> None:
        if not isinstance(schema, Mapping) or (id(schema), at) in self._seen or self.steps > _MOST_STEPS:
            return
        self._seen.add((id(schema), at))
        self.steps += 1
        if _shows_marks(schema) or (
            not isinstance(value, Mapping | list)
            and any(key in schema and self._reaches(schema[key], set()) for key in _CONTAINERS)
        ):
            self.found.add(at)
            return
        for other in self._of_same_value(schema):
            self.by_schema(other, value, at)
        if isinstance(value, Mapping):
            for name, each in value.items():
                for inner in self._of_member(schema, name):
                    self.by_schema(inner, each, (*at, name))
        elif isinstance(value, list):
            for index, each in enumerate(value):
                for inner in _of_item(schema, index):
                    self.by_schema(inner, each, (*at, index))

    def _of_same_value(self, schema: Mapping[str, Any]) -> Iterator[object]:
        if isinstance(reference := schema.get("$ref"), str):
            yield self._lookup(reference)
        for key in _ALTERNATIVES:
            yield from schema.get(key, ())
        for key in _SAME_VALUE:
            if key in schema:
                yield schema[key]
        yield from schema.get("dependentSchemas", {}).values()

    def _of_member(self, schema: Mapping[str, Any], name: str) -> Iterator[object]:
        is_known = name in schema.get("properties", {})
        if is_known:
            yield schema["properties"][name]
        for pattern, inner in schema.get("patternProperties", {}).items():
            if self._is_match(pattern, name):
                is_known = True
                yield inner
        if not is_known:
            yield schema.get("additionalProperties")
        yield schema.get("unevaluatedProperties")

    def _lookup(self, reference: str) -> object:
        node: object = self._root
        for part in unquote(reference.removeprefix("#")).split("/")[1:]:
            key = part.replace("~1", "/").replace("~0", "~")
            if isinstance(node, list) and key.isdecimal() and int(key) < len(node):
                node = node[int(key)]
            else:
                node = node.get(key) if isinstance(node, Mapping) else None
        return node

    def _reaches(self, node: object, seen: set[int]) -> bool:
        """Return whether a value that fits the schema may contain a secret at or below this place."""
        if id(node) in seen:
            return False
        if isinstance(node, list):
            return any(self._reaches(each, seen) for each in node)
        if not isinstance(node, Mapping):
            return False
        seen.add(id(node))
        if _shows_marks(node):
            return True
        reference = node.get("$ref")
        return any(self._reaches(each, seen) for each in node.values()) or (
            isinstance(reference, str) and self._reaches(self._lookup(reference), seen)
        )


def _of_item(schema: Mapping[str, Any], index: int) -> Iterator[object]:
    first = schema.get("prefixItems", ())
    yield first[index] if index < len(first) else schema.get("items")
    yield schema.get("contains")
    yield schema.get("unevaluatedItems")


def _shows_marks(schema: Mapping[str, Any]) -> bool:
    """Return whether a schema is marked as secret, or its pattern demands a reference to a secret."""
    return is_marked(schema) or PREFIX in str(schema.get("pattern", ""))
