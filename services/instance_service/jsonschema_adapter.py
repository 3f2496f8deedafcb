"""JSON Schema 2020-12: checks schemas and configs, reports every violation with its path; it fetches nothing."""

from __future__ import annotations

import datetime as dt
import functools
import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import jsonschema
from referencing import Registry
from referencing.exceptions import Unresolvable
from referencing.jsonschema import DRAFT202012

from optaic.expression import ExpressionError, parse
from servicekit.errors import FieldViolation

_DIALECT = "https://json-schema.org/draft/2020-12/schema"
_REFERENCES = ("$ref", "$dynamicRef")
_DATE = re.compile(r"\d{4}-\d{2}-\d{2}")
_MAXIMUM_VIOLATIONS = 100
_NAME = re.compile(r"[A-Za-z_$][A-Za-z0-9_$-]*")
_formats = jsonschema.FormatChecker()


def _is_date(value: object) -> bool:
    if isinstance(value, str):
        if not _DATE.fullmatch(value):
            raise ValueError("it is not YYYY-MM-DD")
        dt.date.fromisoformat(value)
    return True


def _is_expression(value: object) -> bool:
    if isinstance(value, str):
        parse(value)
    return True


_formats.checks("date", raises=ValueError)(_is_date)
_formats.checks("optaic-expression", raises=ExpressionError)(_is_expression)


def schema_violations(schema: Mapping[str, Any], path: str) -> list[FieldViolation]:
    """Return what is wrong with a schema: its dialect, its shape, and references that are not local."""
    if str(schema.get("$schema", _DIALECT)).rstrip("#") != _DIALECT:
        return [FieldViolation(f"{path}.$schema", f"only {_DIALECT} is known", "INVALID_SCHEMA")]
    validator = jsonschema.Draft202012Validator(
        jsonschema.Draft202012Validator.META_SCHEMA,
        format_checker=jsonschema.Draft202012Validator.FORMAT_CHECKER,
    )
    violations = [
        FieldViolation(_path(path, error.absolute_path), error.message[:500], "INVALID_SCHEMA")
        for error in _bounded(validator.iter_errors(schema))
    ]
    return violations or list(_reference_violations(schema, path))


def _reference_violations(schema: Mapping[str, Any], path: str) -> Iterator[FieldViolation]:
    resource = DRAFT202012.create_resource(schema)
    resolver = Registry().with_resource(resource.id() or "", resource).resolver(resource.id() or "")
    for at, reference in _references(schema, ()):
        where = _path(path, at)
        if not reference.startswith("#"):
            yield FieldViolation(where, "only references within the schema are known", "INVALID_SCHEMA")
            continue
        try:
            resolver.lookup(reference)
        except Unresolvable:
            yield FieldViolation(where, f"{reference} leads nowhere", "INVALID_SCHEMA")


def _references(node: object, at: tuple[str | int, ...]) -> Iterator[tuple[tuple[str | int, ...], str]]:
    if isinstance(node, Mapping):
        for key, value in node.items():
            if key in _REFERENCES and isinstance(value, str):
                yield (*at, key), value
            elif key not in {"const", "enum", "default", "examples"}:
                yield from _references(value, (*at, key))
    elif isinstance(node, list):
        for index, value in enumerate(node):
            yield from _references(value, (*at, index))


def config_violations(
    content_hash: str, schema: Mapping[str, Any], config: Mapping[str, Any], path: str
) -> list[FieldViolation]:
    """Return every violation of a config against its definition version's schema, each with its path."""
    try:
        errors = _bounded(_validator(content_hash, _Schema(schema)).iter_errors(dict(config)))
    except RecursionError:
        return [FieldViolation(path, "the schema refers to itself without end", "INVALID_CONFIG")]
    violations = [violation for error in errors for violation in _violations(error, path)]
    return sorted(violations, key=lambda violation: (violation.field, violation.description))


class _Schema:
    """Carries a schema past the cache: only the content hash is the key."""

    def __init__(self, schema: Mapping[str, Any]) -> None:
        self.schema = schema

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Schema)

    def __hash__(self) -> int:
        return 0


@functools.lru_cache(maxsize=512)
def _validator(_content_hash: str, schema: _Schema) -> Any:
    return jsonschema.Draft202012Validator(dict(schema.schema), format_checker=_formats, registry=Registry())


def _violations(error: Any, path: str) -> Iterator[FieldViolation]:
    where = _path(path, error.absolute_path)
    cause = error.cause
    if isinstance(cause, ExpressionError):
        text = f"{cause.reason}: {cause.message} (position {cause.position}, line {cause.line}, column {cause.column})"
        yield FieldViolation(where, text, "INVALID_EXPRESSION")
    elif error.validator == "required":
        # One error for each missing name: point at the name itself.
        missing = [name for name in error.validator_value if name not in error.instance]
        named = next((name for name in missing if error.message.startswith(repr(name))), "")
        yield FieldViolation(_path(where, [named]) if named else where, "is required", "INVALID_CONFIG")
    elif error.validator == "additionalProperties" and error.validator_value is False:
        known = set(error.schema.get("properties", {}))
        patterns = error.schema.get("patternProperties", {})
        for name in error.instance:
            if name not in known and not any(re.search(pattern, name) for pattern in patterns):
                yield FieldViolation(_path(where, [name]), "is not known", "INVALID_CONFIG")
    else:
        yield FieldViolation(where, error.message[:500], "INVALID_CONFIG")


def _bounded(errors: Iterable[Any]) -> list[Any]:
    found: list[Any] = []
    for error in errors:
        found.append(error)
        if len(found) == _MAXIMUM_VIOLATIONS:
            break
    return found


def _path(prefix: str, parts: Iterable[str | int]) -> str:
    for part in parts:
        if isinstance(part, int):
            prefix += f"[{part}]"
        else:
            prefix += f".{part}" if _NAME.fullmatch(part) else f"[{part!r}]"
    return prefix
