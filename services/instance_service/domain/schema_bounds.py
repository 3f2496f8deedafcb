"""The limits on the size and the nesting of a JSON Schema, so that checking a config always takes a short time."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, TypeAlias

from instance_service.domain.fingerprints import canonical_json
from instance_service.domain.schema_diff import Schema, target

MOST_BYTES = 64 * 1024
MOST_LEVELS = 32
MOST_NODES = 5_000
MOST_ALTERNATIVES = 1_000  # subschemas that one value is checked against, those behind references included
_LONGEST_CHAIN = 100  # of references and combinations; well below Python's recursion limit
ASCENDING = "x-optaic-ascending"  # our own keyword: the values of the listed properties must not decrease in this order
_REFUSED = ("$dynamicRef", "$dynamicAnchor", "$recursiveRef", "$recursiveAnchor")
_DATA = ("const", "enum", "default", "examples")  # their content is a value, not a schema
_NAMES = (("properties",), ("patternProperties",), ("$defs",))  # the keys below these are names, not keywords
_PARTS = ("not", "if", "then", "else")
_LISTS = ("allOf", "anyOf", "oneOf")
Path: TypeAlias = tuple[str | int, ...]


def excess(schema: Mapping[str, Any]) -> tuple[Path, str] | None:
    """Return where a schema is too large, and why; None if it is not."""
    size = 0
    for count, (path, _) in enumerate(_nodes(schema, ()), 1):
        if len(path) > MOST_LEVELS:
            return path[:MOST_LEVELS], f"a schema may be at most {MOST_LEVELS} levels deep; flatten it"
        if count > MOST_NODES:
            return (), f"a schema may have at most {MOST_NODES} values; shorten it"
    size = len(canonical_json(schema).encode())
    if size > MOST_BYTES:
        return (), f"a schema may have at most {MOST_BYTES} bytes, but this one has {size}; shorten it"
    return None


def misuses(schema: Mapping[str, Any]) -> Iterator[tuple[Path, str]]:
    """Yield every wrong use of our own keyword for ascending properties."""
    for path, node in _nodes(schema, ()):
        if isinstance(node, Mapping) and ASCENDING in node and path[-1:] not in _NAMES:
            names = node[ASCENDING]
            if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
                yield (*path, ASCENDING), "must be a list of property names"


def formats(schema: Mapping[str, Any]) -> Iterator[tuple[Path, str]]:
    """Yield the place and the name of every format in a schema."""
    for path, node in _nodes(schema, ()):
        if isinstance(node, Mapping) and path[-1:] not in _NAMES and isinstance(node.get("format"), str):
            yield (*path, "format"), node["format"]


def entanglements(schema: Mapping[str, Any]) -> Iterator[tuple[Path, str]]:
    """Yield every place that makes checking a value costly or endless, and why; the schema must have passed `excess`."""
    costs: dict[int, int] = {}
    keywords: set[str] = set()
    for path, node in _nodes(schema, ()):
        if not isinstance(node, Mapping):
            continue
        keywords |= node.keys()
        for name in _REFUSED:
            if name in node:
                yield (*path, name), "is not supported; only $ref can refer to another schema"
        if path and isinstance(node.get("$id"), str) and path[-1] != "properties":
            yield (*path, "$id"), "only the top level of a schema may have an $id; remove this one"
        cost = _cost(schema, node, costs, 0)
        if cost > MOST_ALTERNATIVES:
            text = f"refers to itself without end, or checks one value against more than {MOST_ALTERNATIVES} subschemas; simplify it"
            yield path, text
            return
    if "unevaluatedProperties" in keywords and "patternProperties" in keywords:
        yield (
            (),
            "unevaluatedProperties and patternProperties do not go together; use additionalProperties instead",
        )


def _nodes(node: object, path: Path) -> Iterator[tuple[Path, object]]:
    pending: list[tuple[Path, object]] = [(path, node)]
    while pending:
        at, current = pending.pop()
        yield at, current
        if isinstance(current, Mapping):
            pending.extend(((*at, key), value) for key, value in current.items() if key not in _DATA)
        elif isinstance(current, list):
            pending.extend(((*at, index), value) for index, value in enumerate(current))


def _cost(root: Schema, node: object, costs: dict[int, int], level: int) -> int:
    """Return how many subschemas a value is checked against at this node; without end it is more than the limit."""
    if not isinstance(node, Mapping):
        return 1
    key = id(node)
    if key not in costs:
        costs[key] = MOST_ALTERNATIVES + 1  # a reference back to this node has no end
        if level > _LONGEST_CHAIN:
            return costs[key]
        costs[key] = min(
            1 + sum(_cost(root, part, costs, level + 1) for part in _parts(root, node)),
            MOST_ALTERNATIVES + 1,
        )
    return costs[key]


def _parts(root: Schema, node: Mapping[str, Any]) -> Iterator[object]:
    """Yield the subschemas that check the same value as the node."""
    if isinstance(node.get("$ref"), str):
        yield target(root, node["$ref"])
    yield from (node[name] for name in _PARTS if name in node)
    for name in _LISTS:
        if isinstance(node.get(name), list):
            yield from node[name]
    if isinstance(node.get("dependentSchemas"), Mapping):
        yield from node["dependentSchemas"].values()
