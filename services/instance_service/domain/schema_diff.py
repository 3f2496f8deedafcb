"""The changes between two JSON Schemas, and whether every value that was valid still is.

A schema is a conjunction of keywords: if each keyword is compatible, the whole is. A change that cannot be judged
cheaply counts as breaking, so that COMPATIBLE can be trusted.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias
from urllib.parse import unquote

from instance_service.domain.fingerprints import canonical_json
from optaic.rules.numbers import is_multiple

Schema: TypeAlias = Mapping[str, Any] | bool

_TYPES = frozenset({"null", "boolean", "object", "array", "number", "string", "integer"})
# They describe the schema and refuse no value.
_ANNOTATIONS = frozenset(
    {"title", "description", "examples", "deprecated", "readOnly"}
    | {"$schema", "$id", "$comment", "$anchor", "$defs", "definitions", "$vocabulary"}
)
_LOWER = ("minLength", "minItems", "minProperties")
_UPPER = ("maxLength", "maxItems", "maxProperties")
_EXACT = ("pattern", "format", "dependentRequired")  # it is unknown which of two accepts more
_WHOLE = ("oneOf", "not", "dependentSchemas")  # if a part accepts more, the whole may accept less
_CONTAINS = ("contains", "minContains", "maxContains")
_CONDITION = ("if", "then", "else")
_UNEVALUATED = ("unevaluatedProperties", "unevaluatedItems")
_HANDLED = frozenset(
    {
        "$ref",
        "type",
        "enum",
        "const",
        "minimum",
        "exclusiveMinimum",
        "maximum",
        "exclusiveMaximum",
        "multipleOf",
    }
    | {"uniqueItems", "required", "properties", "patternProperties", "additionalProperties", "propertyNames"}
    | {"prefixItems", "items", "allOf", "anyOf", "default"}
    | {*_LOWER, *_UPPER, *_EXACT, *_WHOLE, *_CONTAINS, *_CONDITION}
)
_ANYTHING: Schema = True
_MOST_STEPS = 10_000
_DEEPEST = 150  # levels of the walk; well below Python's recursion limit
_MOST_HOPS = 32


@dataclass(frozen=True, order=True)
class Change:
    """A difference; `path` is a JSON Pointer into the schema that contains it."""

    path: str
    description: str
    is_breaking: bool


def diff(old: Schema, new: Schema) -> list[Change]:
    """Return every difference that can change which values are valid, sorted by path."""
    if any(_has_unevaluated(schema) for schema in (old, new)):
        # Their effect depends on all other keywords around them.
        text = "changed, and unevaluatedProperties or unevaluatedItems cannot be compared"
        return [] if canonical_json(old) == canonical_json(new) else [Change("", text, is_breaking=True)]
    comparison = _Comparison(old, new)
    comparison.compare(old, new, "")
    return sorted(set(comparison.changes))


class _Comparison:
    """One walk over two schemas at once."""

    def __init__(self, old_root: Schema, new_root: Schema) -> None:
        self._roots = (old_root, new_root)
        self._seen: set[tuple[int, int]] = set()
        self._steps = 0
        self._depth = 0
        self.changes: list[Change] = []

    def compare(self, old: Schema, new: Schema, path: str) -> None:
        """Add what differs; `path` is where `new` lies."""
        self._steps += 1
        if self._steps > _MOST_STEPS or self._depth > _DEEPEST:
            self._add(path, "the schemas are too complex to compare", is_breaking=True)
            return
        (old, _), (new, path) = (
            self._follow(old, self._roots[0], path),
            self._follow(new, self._roots[1], path),
        )
        pair = (id(old), id(new))
        if pair in self._seen:
            return  # this pair is compared already, or is being compared further up
        if not isinstance(old, bool) and not isinstance(new, bool):
            self._seen.add(pair)
        if old is False:
            if new is not False:
                self._add(path, "values are now allowed", is_breaking=False)
            return
        if _is_anything(old) and _is_anything(new):
            return
        if new is False:
            self._add(path, "values are no longer allowed", is_breaking=True)
            return
        self._depth += 1
        self._keywords({} if old is True else old, {} if new is True else new, path)
        self._depth -= 1

    def _keywords(self, old: Any, new: Any, path: str) -> None:
        self._references(old, new, path)
        self._types(old, new, path)
        self._values(old, new, path)
        self._bounds(old, new, path)
        self._objects(old, new, path)
        self._arrays(old, new, path)
        self._combined(old, new, path)
        for name in _EXACT:
            self._exact(old, new, path, name)
        for name in _WHOLE:
            self._whole(old, new, path, (name,))
        self._whole(old, new, path, _CONDITION)
        if canonical_json(old.get("default")) != canonical_json(new.get("default")):
            self._add(f"{path}/default", "the default changed", is_breaking=False)
        for name in sorted((old.keys() | new.keys()) - _HANDLED - _ANNOTATIONS):
            if canonical_json(old.get(name)) != canonical_json(new.get(name)) or (name in old) != (
                name in new
            ):
                self._add(f"{path}/{token(name)}", "an unknown keyword changed", is_breaking=True)

    def _follow(self, node: Any, root: Schema, path: str) -> tuple[Any, str]:
        """Return the target of a node that is only a reference, and its path; return any other node itself."""
        for _ in range(_MOST_HOPS):
            if isinstance(node, bool) or node.keys() - _ANNOTATIONS != {"$ref"}:
                break
            found = target(root, node["$ref"])
            if found is None:
                break
            node, path = found, node["$ref"].removeprefix("#")
        return node, path

    def _references(self, old: Any, new: Any, path: str) -> None:
        """Compare references that stand next to other keywords."""
        if "$ref" in old or "$ref" in new:
            found = [
                target(root, node["$ref"]) if "$ref" in node else True
                for root, node in zip(self._roots, (old, new), strict=True)
            ]
            if found[0] is None or found[1] is None:
                self._add(f"{path}/$ref", "a reference leads to no schema", is_breaking=True)
            else:
                self.compare(found[0], found[1], f"{path}/$ref")

    def _types(self, old: Any, new: Any, path: str) -> None:
        before, after = _type_names(old), _type_names(new)
        where = f"{path}/type"
        if lost := sorted(before - after):
            self._add(where, f"{' and '.join(lost)} no longer allowed", is_breaking=True)
        if gained := sorted(after - before):
            self._add(where, f"{' and '.join(gained)} allowed now", is_breaking=False)

    def _values(self, old: Any, new: Any, path: str) -> None:
        before, after = _allowed(old), _allowed(new)
        if before == after:
            return
        where = f"{path}/{'const' if 'const' in new or ('const' in old and 'enum' not in new) else 'enum'}"
        if after is None:
            self._add(where, "no longer restricted to certain values", is_breaking=False)
        elif before is None:
            self._add(where, "restricted to certain values now", is_breaking=True)
        else:
            if lost := sorted(before - after):
                self._add(where, f"values removed: {_shown(lost)}", is_breaking=True)
            if gained := sorted(after - before):
                self._add(where, f"values added: {_shown(gained)}", is_breaking=False)

    def _bounds(self, old: Any, new: Any, path: str) -> None:
        for names, sign in ((("minimum", "exclusiveMinimum"), 1), (("maximum", "exclusiveMaximum"), -1)):
            before, after = _limit(old, names, sign), _limit(new, names, sign)
            name = next((each for each in reversed(names) if each in new), None)
            where = f"{path}/{name or next((each for each in names if each in old), names[0])}"
            self._bound(where, before, after)
        for name in _LOWER:
            self._bound(f"{path}/{name}", _limit(old, (name,), 1), _limit(new, (name,), 1))
        for name in _UPPER:
            self._bound(f"{path}/{name}", _limit(old, (name,), -1), _limit(new, (name,), -1))
        before, after = old.get("multipleOf"), new.get("multipleOf")
        if before != after:
            is_wider = after is None or (before is not None and is_multiple(before, after))
            self._add(f"{path}/multipleOf", f"{before} became {after}", is_breaking=not is_wider)

    def _bound(self, path: str, before: tuple[float, bool] | None, after: tuple[float, bool] | None) -> None:
        if before == after:
            return
        is_tighter = after is not None and (before is None or after > before)
        self._add(
            path, "the bound is tighter" if is_tighter else "the bound is looser", is_breaking=is_tighter
        )

    def _objects(self, old: Any, new: Any, path: str) -> None:
        for name in sorted(set(new.get("required", ())) ^ set(old.get("required", ()))):
            is_new = name in new.get("required", ())
            text = f"property {name!r} is {'required now' if is_new else 'no longer required'}"
            self._add(f"{path}/required", text, is_breaking=is_new)
        before, after = old.get("properties", {}), new.get("properties", {})
        rest = (old.get("additionalProperties", True), new.get("additionalProperties", True))
        patterns = (old.get("patternProperties", {}), new.get("patternProperties", {}))
        for name in sorted(before.keys() | after.keys()):
            where = f"{path}/properties/{token(name)}"
            if name in before and name in after:
                self.compare(before[name], after[name], where)
            elif name in after:
                # Before, the property was not allowed or followed the rules for other properties; a pattern may have allowed anything.
                was = True if patterns[0] else rest[0]
                self._summarize("property added", was, after[name], where)
            else:
                self._summarize("property removed", before[name], rest[1], where)
        for pattern in sorted(patterns[0].keys() | patterns[1].keys()):
            where = f"{path}/patternProperties/{token(pattern)}"
            if pattern in patterns[0] and pattern in patterns[1]:
                self.compare(patterns[0][pattern], patterns[1][pattern], where)
            elif pattern in patterns[1]:
                self._summarize("a pattern for properties was added", _ANYTHING, patterns[1][pattern], where)
            else:
                self._summarize("a pattern for properties was removed", patterns[0][pattern], rest[1], where)
        self.compare(*rest, f"{path}/additionalProperties")
        self.compare(old.get("propertyNames", True), new.get("propertyNames", True), f"{path}/propertyNames")

    def _arrays(self, old: Any, new: Any, path: str) -> None:
        before, after = old.get("prefixItems", ()), new.get("prefixItems", ())
        rest = (old.get("items", True), new.get("items", True))
        for index in range(max(len(before), len(after))):
            self.compare(
                before[index] if index < len(before) else rest[0],
                after[index] if index < len(after) else rest[1],
                f"{path}/prefixItems/{index}",
            )
        self.compare(*rest, f"{path}/items")
        was, is_now = bool(old.get("uniqueItems")), bool(new.get("uniqueItems"))
        if was != is_now:
            text = "items must now be unique" if is_now else "items no longer need to be unique"
            self._add(f"{path}/uniqueItems", text, is_breaking=is_now)
        if "contains" in new:
            self._whole(old, new, path, _CONTAINS)
        elif "contains" in old:
            self._add(f"{path}/contains", "no longer demanded", is_breaking=False)

    def _combined(self, old: Any, new: Any, path: str) -> None:
        for name in ("allOf", "anyOf"):
            before, after = old.get(name), new.get(name)
            if before is None and after is None:
                continue
            where = f"{path}/{name}"
            if after is None:
                self._add(where, "no longer demanded", is_breaking=False)
                continue
            if before is None:
                before = [] if name == "allOf" else [True]
            for index, (one, other) in enumerate(zip(before, after, strict=False)):
                self.compare(one, other, f"{where}/{index}")
            is_longer = len(after) > len(before)
            if len(after) != len(before):
                text = f"{'more' if is_longer else 'fewer'} alternatives or demands"
                self._add(where, text, is_breaking=is_longer == (name == "allOf"))

    def _exact(self, old: Any, new: Any, path: str, name: str) -> None:
        if canonical_json(old.get(name)) != canonical_json(new.get(name)):
            text = "no longer demanded" if name not in new else "changed" if name in old else "demanded now"
            self._add(f"{path}/{name}", text, is_breaking=name in new)

    def _whole(self, old: Any, new: Any, path: str, names: Sequence[str]) -> None:
        """Compare keywords in which every change counts as breaking."""
        first = next((name for name in names if name in new or name in old), None)
        if first is None:
            return
        if not any(name in new for name in names):
            self._add(f"{path}/{first}", "no longer demanded", is_breaking=False)
        elif not self._is_same([old.get(name) for name in names], [new.get(name) for name in names]):
            self._add(f"{path}/{first}", "changed", is_breaking=True)

    def _is_same(self, old: Any, new: Any) -> bool:
        """Return whether both schemas are equal, references included."""
        if canonical_json(old) != canonical_json(new):
            return False
        return '"$ref"' not in canonical_json(old) or canonical_json(self._roots[0]) == canonical_json(
            self._roots[1]
        )

    def _summarize(self, text: str, old: Schema, new: Schema, path: str) -> None:
        """Add one change that describes every difference between the two."""
        mark = len(self.changes)
        self.compare(old, new, path)
        is_breaking = any(change.is_breaking for change in self.changes[mark:])
        del self.changes[mark:]
        self._add(path, text, is_breaking=is_breaking)

    def _add(self, path: str, description: str, *, is_breaking: bool) -> None:
        self.changes.append(Change(path, description, is_breaking))


def _is_anything(schema: Schema) -> bool:
    return schema is True or (schema is not False and not schema.keys() - _ANNOTATIONS)


def _has_unevaluated(node: object) -> bool:
    if isinstance(node, Mapping):
        return any(name in node for name in _UNEVALUATED) or any(map(_has_unevaluated, node.values()))
    return isinstance(node, list) and any(map(_has_unevaluated, node))


def _type_names(schema: Mapping[str, Any]) -> frozenset[str]:
    given = schema.get("type", _TYPES)
    names = frozenset([given] if isinstance(given, str) else given)
    return names | {"integer"} if "number" in names else names


def _allowed(schema: Mapping[str, Any]) -> frozenset[str] | None:
    """Return the values that `enum` and `const` allow, as canonical texts; None if they allow all."""
    sets = [frozenset(map(canonical_json, schema["enum"]))] if "enum" in schema else []
    if "const" in schema:
        sets.append(frozenset([canonical_json(schema["const"])]))
    return frozenset.intersection(*sets) if sets else None


def _shown(values: Sequence[str]) -> str:
    more = f" and {len(values) - 5} more" if len(values) > 5 else ""  # noqa: PLR2004 - enough to recognize
    return ", ".join(value[:40] for value in values[:5]) + more


def _limit(schema: Mapping[str, Any], names: Sequence[str], sign: int) -> tuple[float, bool] | None:
    """Return the tightest (greatest) of the bounds, and whether it excludes the bound itself."""
    found = [(sign * schema[name], name.startswith("exclusive")) for name in names if name in schema]
    tightest = max(found, default=None)
    return None if tightest == (0, False) and names[0] in _LOWER else tightest


def target(root: Schema, reference: str) -> Any:
    """Return the subschema at a JSON Pointer within the schema, or None if there is none."""
    node: Any = root
    if not reference.startswith("#") or (len(reference) > 1 and reference[1] != "/"):
        return None
    for token in unquote(reference[1:]).split("/")[1:]:
        key = token.replace("~1", "/").replace("~0", "~")
        if isinstance(node, Mapping) and key in node:
            node = node[key]
        elif isinstance(node, list) and key.isdecimal() and int(key) < len(node):
            node = node[int(key)]
        else:
            return None
    return node if isinstance(node, Mapping | bool) else None


def token(name: str) -> str:
    """Return a name escaped for a JSON Pointer."""
    return name.replace("~", "~0").replace("/", "~1")
