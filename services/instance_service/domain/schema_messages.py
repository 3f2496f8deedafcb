"""The messages for values that break a JSON Schema; values are shown as JSON."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any

from redaction import PREFIX, redact

REFERENCE = f"${{{PREFIX}NAME}}"
_LONGEST = 200
_LONGEST_READ = 64 * 1024
_HIDDEN = "the value, which is not shown because it may be secret,"


def shown(value: object) -> str:
    """Return a value as JSON on one line, without its secrets."""
    try:
        text = redact(json.dumps(value, ensure_ascii=False)[:_LONGEST_READ])
    except (TypeError, ValueError):
        text = "this value"
    return text if len(text) <= _LONGEST else f"{text[: _LONGEST - 3]}..."


def _several(names: Any) -> str:
    return " or ".join(names) if isinstance(names, list) else str(names)


def _count(noun: str, most: Any) -> str:
    return f"{most} {noun}{'' if most == 1 else 's'}"


_RULES: Mapping[str, Callable[[str, Any], str]] = MappingProxyType(
    {
        "type": lambda value, wanted: f"{value} is not of type {_several(wanted)}",
        "enum": lambda value, wanted: f"{value} is not one of {', '.join(map(shown, wanted))}",
        "const": lambda value, wanted: f"{value} is not {shown(wanted)}",
        "minimum": lambda value, wanted: f"{value} is less than {shown(wanted)}",
        "maximum": lambda value, wanted: f"{value} is more than {shown(wanted)}",
        "exclusiveMinimum": lambda value, wanted: f"{value} is not more than {shown(wanted)}",
        "exclusiveMaximum": lambda value, wanted: f"{value} is not less than {shown(wanted)}",
        "multipleOf": lambda value, wanted: f"{value} is not a multiple of {shown(wanted)}",
        "minLength": lambda value, wanted: f"{value} has fewer than {_count('character', wanted)}",
        "maxLength": lambda value, wanted: f"{value} has more than {_count('character', wanted)}",
        "pattern": lambda value, wanted: f"{value} does not match {shown(wanted)}",
        "minItems": lambda value, wanted: f"{value} has fewer than {_count('item', wanted)}",
        "maxItems": lambda value, wanted: f"{value} has more than {_count('item', wanted)}",
        "uniqueItems": lambda value, _: f"{value} has an item twice",
        "minProperties": lambda value, wanted: f"{value} has fewer than {_count('value', wanted)}",
        "maxProperties": lambda value, wanted: f"{value} has more than {_count('value', wanted)}",
        "contains": lambda value, _: f"{value} contains too few items of the kind that the schema demands",
        "anyOf": lambda value, _: f"{value} fits none of the alternatives",
        "oneOf": lambda value, _: f"{value} does not fit exactly one of the alternatives",
        "not": lambda value, _: f"{value} is a value that the schema excludes",
        "format": lambda value, wanted: f"{value} is not of the format {wanted}",
        "items": lambda value, _: f"{value} has more items than the schema allows",
        "unevaluatedItems": lambda value, _: f"{value} has items that the schema does not know",
        "unevaluatedProperties": lambda value, _: f"{value} has properties that the schema does not know",
        "additionalProperties": lambda value, _: f"{value} has properties that the schema does not know",
        "dependentRequired": lambda value, _: (
            f"{value} lacks a property that another of its properties requires"
        ),
    }
)


def describe_rule(keyword: str | None, wanted: object, value: object) -> str:
    """Return the rule that a value breaks, in words; without a keyword the schema allows no value."""
    if keyword is None:
        return f"{shown(value)} is not allowed here"
    words = _RULES.get(keyword)
    return words(shown(value), wanted) if words else f"{shown(value)} breaks the rule {keyword}"


def describe_rule_for_secret(keyword: str | None, wanted: object) -> str:
    """Return the rule that a value breaks, in words that show nothing of it, because it may contain a secret."""
    if keyword == "writeOnly" or (keyword == "format" and wanted == "password"):
        return (
            f"is a secret: it must be a reference like {REFERENCE} to a variable of the worker's environment"
        )
    words = None if keyword in {None, "enum", "const"} else _RULES.get(str(keyword))
    text = words(_HIDDEN, wanted) if words else f"{_HIDDEN} breaks the rule {keyword}"
    is_of_references = keyword == "pattern" and PREFIX in str(wanted)
    return (
        f"{text}; write a secret as a reference like {REFERENCE}, never in clear text"
        if is_of_references
        else text
    )
