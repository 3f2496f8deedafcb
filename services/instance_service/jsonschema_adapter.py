"""The adapter for JSON Schema 2020-12: it checks schemas and configs and reports every violation with its field path."""

from __future__ import annotations

import contextlib
import functools
import itertools
import json
import re
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from contextvars import ContextVar
from dataclasses import replace
from types import MappingProxyType
from typing import Any, TypeAlias

import jsonschema
from referencing import Registry
from referencing.exceptions import Unresolvable
from referencing.jsonschema import DRAFT202012

from instance_service.domain.check_costs import MOST_STEPS, Steps, TooManyHopsError, TooManyStepsError
from instance_service.domain.fingerprints import canonical_json
from instance_service.domain.formats import FORMATS
from instance_service.domain.schema_bounds import ASCENDING, Path, entanglements, excess, misuses
from instance_service.domain.schema_messages import REFERENCE, describe_rule, describe_rule_for_secret, shown
from instance_service.domain.secret_properties import (
    PASSWORD,
    clear_values,
    hide,
    is_secret,
    secret_paths,
    texts_at,
)
from optaic.expression import OPERATORS, Expression, ExpressionError, Macro, Signature, list_called, parse
from optaic.plugins.keywords import KEYWORDS, list_extras
from optaic.plugins.patterns import check_pattern, is_match
from optaic.rules.numbers import LARGEST_WHOLE
from redaction import is_reference
from servicekit.errors import FieldViolation

_DIALECT = "https://json-schema.org/draft/2020-12/schema"
_REFERENCES = ("$ref", "$dynamicRef")
_MAXIMUM_VIOLATIONS = 100
_INSTRUCTIONS_REFUSED = 4_000  # it takes as long to find out that a pattern is too large
_LARGEST_KEPT = 16 * 1024  # characters of a schema; its validator takes up to ten times as many bytes
_steps: ContextVar[Steps] = ContextVar("steps")
_Keyword: TypeAlias = Callable[[Any, Any, Any, Mapping[str, Any]], Iterable[Any] | None]
_NAME = re.compile(r"[A-Za-z_$][A-Za-z0-9_$-]*")
EXPRESSION = "optaic-expression"
_SHOWS_NO_VALUE = frozenset({"required", "additionalProperties"})
_NO_MACROS: Mapping[str, Macro] = MappingProxyType({})
# In schemas, only patterns are checked for their format. Both start empty, because the library's own formats depend
# on the installed packages.
_formats, _schema_formats = jsonschema.FormatChecker(()), jsonschema.FormatChecker(())
# The check of the expressions that a validator finds: validators are cached, macros differ between calls.
_on_expression: ContextVar[Callable[[str], object]] = ContextVar("on_expression", default=parse)


def _is_expression(value: object) -> bool:
    if isinstance(value, str):
        try:
            _on_expression.get()(value)
        except ExpressionError as error:
            error.__context__ = None  # this and its traceback would keep all that the parser made
            raise error.with_traceback(None) from None
    return True


def _is_pattern(value: object) -> bool:
    if isinstance(value, str):
        instructions = _INSTRUCTIONS_REFUSED
        try:
            instructions = check_pattern(value)
        finally:
            _steps.get().take_pattern(instructions)
    return True


def _kept(is_kept: Callable[[str], bool]) -> Callable[[object], bool]:
    return lambda value: not isinstance(value, str) or is_kept(value)


for _checker in (_formats, _schema_formats):
    _checker.checks("regex", raises=ValueError)(_is_pattern)
_formats.checks(EXPRESSION, raises=ExpressionError)(_is_expression)
for _name, _format in FORMATS.items():
    _formats.checks(_name)(_kept(_format.is_kept))
KNOWN_FORMATS = frozenset(_formats.checkers)
# Not in the standard: it marks a secret, as `writeOnly` does.
_formats.checks(PASSWORD)(_kept(is_reference))


class _ReadableError(jsonschema.ValidationError):  # type: ignore[misc]  # the library has no types
    """A validation error whose message is shown as it is."""


def _type(validator: Any, names: Any, instance: object, schema: Mapping[str, Any]) -> Iterator[Any]:
    """Check `type`; a whole number beyond 2^53 is refused, because a double may have rounded it."""
    is_whole = "integer" in names and "number" not in names  # one name or a list of names
    if is_whole and isinstance(instance, float) and instance.is_integer() and abs(instance) > LARGEST_WHOLE:
        text = f"{instance:.0f} is not carried exactly; a whole number must lie between -{LARGEST_WHOLE} and {LARGEST_WHOLE}"
        yield _ReadableError(f"{text}; let the definition take such a number as a text")
    else:
        yield from jsonschema.Draft202012Validator.VALIDATORS["type"](validator, names, instance, schema)


def _unique_items(
    _validator: Any, is_wanted: bool, instance: object, _schema: Mapping[str, Any]
) -> Iterator[Any]:
    if is_wanted and isinstance(instance, list) and len(set(map(canonical_json, instance))) < len(instance):
        yield jsonschema.ValidationError("has an item twice")


def _ascending(
    _validator: Any, names: Iterable[str], instance: object, _schema: Mapping[str, Any]
) -> Iterator[Any]:
    """Check that numbers, or dates as texts, do not decrease; other values are left to other keywords."""
    if not isinstance(instance, Mapping):
        return
    for kind in (str, (int, float)):
        given = [name for name in names if isinstance(instance.get(name), kind)]
        for before, after in itertools.pairwise(given):
            if instance[after] < instance[before]:
                text = f"{shown(instance[after])} is before {before}, {shown(instance[before])}"
                yield _ReadableError(text, path=[after])


def _write_only(
    _validator: Any, is_marked: object, instance: object, _schema: Mapping[str, Any]
) -> Iterator[Any]:
    if is_marked is True and not is_secret(instance):
        yield jsonschema.ValidationError("is a secret in clear")  # `_conceal` replaces this message


def _counted(name: str, keyword: _Keyword) -> _Keyword:
    def check(
        validator: Any, value: Any, instance: object, schema: Mapping[str, Any]
    ) -> Iterable[Any] | None:
        _steps.get().take(name, value, instance)
        return keyword(validator, value, instance, schema)

    return check


# Our own versions of keywords that match patterns or would take too long.
_KEYWORDS: Mapping[str, _Keyword] = {
    **jsonschema.Draft202012Validator.VALIDATORS,
    "type": _type,
    **KEYWORDS,
    "uniqueItems": _unique_items,
    "writeOnly": _write_only,
    ASCENDING: _ascending,
}
_Validator, _MetaValidator = (
    jsonschema.validators.extend(
        jsonschema.Draft202012Validator, {name: _counted(name, keyword) for name, keyword in keywords.items()}
    )
    for keywords in (_KEYWORDS, jsonschema.Draft202012Validator.VALIDATORS)
)


def schema_violations(schema: Mapping[str, Any], path: str) -> list[FieldViolation]:
    """Return every error in a schema: a wrong dialect, invalid keywords, or references outside of the schema."""
    if str(schema.get("$schema", _DIALECT)).rstrip("#") != _DIALECT:
        return [
            FieldViolation(
                f"{path}.$schema",
                f"only {_DIALECT} is supported; write it or leave $schema out",
                "INVALID_SCHEMA",
            )
        ]
    if too_much := excess(schema):
        return [FieldViolation(field_path(path, too_much[0]), too_much[1], "INVALID_SCHEMA")]
    meta_schema = jsonschema.Draft202012Validator.META_SCHEMA
    validator = _MetaValidator(meta_schema, format_checker=_schema_formats)
    try:
        found = _bounded(validator.iter_errors(schema))
    except (TooManyStepsError, TooManyHopsError):
        return [
            FieldViolation(path, f"takes more than {MOST_STEPS} steps to check; shorten it", "INVALID_SCHEMA")
        ]
    violations = [
        FieldViolation(
            field_path(path, error.absolute_path),
            str(error.cause or _describe_error(error))[:500],
            "INVALID_SCHEMA",
        )
        for error in found
    ]
    return violations or [
        *_reference_violations(schema, path),
        *(
            FieldViolation(field_path(path, at), text, "INVALID_SCHEMA")
            for at, text in (*misuses(schema), *entanglements(schema))
        ),
        *(
            FieldViolation(
                field_path(path, at),
                f"a secret must not be written in clear text; use a reference like {REFERENCE}",
                "INVALID_SCHEMA",
            )
            for at in clear_values(schema)
        ),
    ]


def _reference_violations(schema: Mapping[str, Any], path: str) -> Iterator[FieldViolation]:
    resource = DRAFT202012.create_resource(schema)
    resolver = Registry().with_resource(resource.id() or "", resource).resolver(resource.id() or "")
    for at, reference in _references(schema, ()):
        where = field_path(path, at)
        if reference != "#" and not reference.startswith("#/"):
            text = "only references within the schema are supported; write a JSON Pointer like #/$defs/name"
            yield FieldViolation(where, text, "INVALID_SCHEMA")
            continue
        try:
            resolver.lookup(reference)
        except Unresolvable:
            yield FieldViolation(
                where,
                f"{reference} leads to nothing in this schema; correct the JSON Pointer",
                "INVALID_SCHEMA",
            )


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


def _any_columns(_: Expression) -> None:
    """Accept every column that an expression reads."""


def config_violations(
    content_hash: str,
    schema: Mapping[str, Any],
    config: Mapping[str, Any],
    path: str,
    macros: Mapping[str, Macro] | None = _NO_MACROS,
    operators: Mapping[str, Signature] = OPERATORS,
    check_columns: Callable[[Expression], None] = _any_columns,
) -> list[FieldViolation]:
    """Return every violation of the definition version's schema by a config, each with its field path.

    `macros` and `operators` are what its expressions may call, by name. If macros is None, expressions that call anything
    but operators are not checked. `check_columns` raises ExpressionError for columns that may not be read.
    """

    def check(text: str) -> None:
        if macros is not None or not list_called(text, operators):
            check_columns(parse(text, operators, macros or {}))

    try:
        errors = _errors(content_hash, schema, config, check)
    except RecursionError:
        return [
            FieldViolation(
                path,
                "the definition's schema refers to itself without end; publish a version without the circle",
                "INVALID_CONFIG",
            )
        ]
    except TooManyStepsError:
        text = f"takes more than {MOST_STEPS} steps to check against the definition's schema; shorten it, or simplify the schema"
        return [FieldViolation(path, text, "INVALID_CONFIG")]
    secret = secret_paths(schema, config, is_match) if errors else set()
    hidden = list(texts_at(config, secret))
    violations = [
        replace(violation, description=hide(violation.description, hidden))
        for error in errors
        for violation in _violations(error, path, secret)
    ]
    return sorted(violations, key=lambda violation: (violation.field, violation.description))


def expressions_of(content_hash: str, schema: Mapping[str, Any], config: Mapping[str, Any]) -> list[str]:
    """Return the expressions in a config, valid or not, as the schema marks them."""
    found: list[str] = []
    if config and EXPRESSION in json.dumps(schema):
        with contextlib.suppress(RecursionError, TooManyStepsError):
            _errors(content_hash, schema, config, found.append)
    return found


def _errors(
    content_hash: str,
    schema: Mapping[str, Any],
    config: Mapping[str, Any],
    on_expression: Callable[[str], object],
) -> list[Any]:
    token = _on_expression.set(on_expression)
    try:
        return _bounded(_validator(content_hash, schema).iter_errors(dict(config)))
    finally:
        _on_expression.reset(token)


class _Schema:
    """A schema as an argument of a cached function; the cache's key is the content hash alone."""

    def __init__(self, schema: Mapping[str, Any]) -> None:
        self.schema = schema

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Schema)

    def __hash__(self) -> int:
        return 0


def _validator(content_hash: str, schema: Mapping[str, Any]) -> Any:
    """Return a validator; that of a large schema is made anew each time, because many would take too much memory."""
    if len(json.dumps(schema)) > _LARGEST_KEPT:
        return _make_validator(schema)
    return _kept_validator(content_hash, _Schema(schema))


@functools.lru_cache(maxsize=256)
def _kept_validator(_content_hash: str, schema: _Schema) -> Any:
    return _make_validator(schema.schema)


def _make_validator(schema: Mapping[str, Any]) -> Any:
    return _Validator(dict(schema), format_checker=_formats, registry=Registry())


def _conceal(error: Any, path: str, secret: Collection[Path]) -> FieldViolation | None:
    """Describe an error; the description shows no value that may contain a secret."""
    at = tuple(error.absolute_path)
    around = next((at[:length] for length in range(len(at) + 1) if at[:length] in secret), None)
    is_open = (
        not secret or not isinstance(error.instance, Mapping | list) or error.validator in _SHOWS_NO_VALUE
    )
    if around is None and is_open:
        return None
    text = describe_rule_for_secret(error.validator, error.validator_value)
    return FieldViolation(field_path(path, at if around is None else around), text, "INVALID_CONFIG")


def _violations(error: Any, path: str, secret: Collection[Path]) -> Iterator[FieldViolation]:
    if concealed := _conceal(error, path, secret):
        yield concealed
        return
    where = field_path(path, error.absolute_path)
    cause = error.cause
    if isinstance(cause, ExpressionError):
        text = f"{cause.reason}: {cause.message} (position {cause.position}, line {cause.line}, column {cause.column})"
        yield FieldViolation(where, text, "INVALID_EXPRESSION")
    elif error.validator == "required":
        # There is one error for each missing name, so its path ends with that name.
        missing = [name for name in error.validator_value if name not in error.instance]
        named = next((name for name in missing if error.message.startswith(repr(name))), "")
        yield FieldViolation(field_path(where, [named]) if named else where, "is required", "INVALID_CONFIG")
    elif error.validator == "additionalProperties" and error.validator_value is False:
        for name in list_extras(error.schema, error.instance):
            yield FieldViolation(field_path(where, [name]), "is not known", "INVALID_CONFIG")
    elif error.validator == "format" and error.validator_value in FORMATS:
        wanted = FORMATS[error.validator_value]
        text = f"{shown(error.instance)} is not {wanted.rule}, for example {wanted.example}"
        yield FieldViolation(where, text, "INVALID_CONFIG")
    else:
        yield FieldViolation(where, _describe_error(error), "INVALID_CONFIG")


def _describe_error(error: Any) -> str:
    """Describe an error in our own words, because the library shows values as Python writes them."""
    if isinstance(error, _ReadableError):
        return str(error.message)[:500]
    return describe_rule(error.validator, error.validator_value, error.instance)


def _bounded(errors: Iterable[Any]) -> list[Any]:
    token = _steps.set(Steps())
    try:
        return list(itertools.islice(errors, _MAXIMUM_VIOLATIONS))
    finally:
        _steps.reset(token)


def field_path(prefix: str, parts: Iterable[str | int]) -> str:
    """Return the field path of a place below another field."""
    for part in parts:
        if isinstance(part, int):
            prefix += f"[{part}]"
        else:
            prefix += f".{part}" if _NAME.fullmatch(part) else f"[{part!r}]"
    return prefix
