"""The expression language as definitions: a class for each operator, and the manifests of operators and macros.

`python -m worker.builtin.language services/instance_service/builtin` rewrites the manifests; a test compares them.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import polars as pl

from optaic.expression import FIRST_OPERATORS, MACROS, OPERATORS, Parameter, Signature
from optaic.expression.compiler import IMPLEMENTATIONS
from optaic.expression.signature import GROUP
from optaic.plugins import Operator
from optaic.rules.columns import DATE, ENTITY, KEYS, VALUE

_MODULE = "worker.builtin.language"  # also when it is executed
_SCHEMA = "https://json-schema.org/draft/2020-12/schema"
_VALUE = {
    "type": ["string", "number"],
    "format": "optaic-expression",
    "maxLength": 10_000,
    "description": "An expression over the columns of the inputs, or a number.",
}
_GROUP = {
    "type": "string",
    "format": "optaic-expression",
    "maxLength": 10_000,
    "description": "A column; only entities with the same value of it are compared.",
}
_DESCRIPTIONS = {
    "n": "A number of sessions.",
    "min_periods": "How many of the sessions need a value, where that is not the default.",
    "hump": "How far a value moves at most.",
}
_LATER = frozenset({"min_periods", GROUP})  # the arguments that no operator had at first
_SESSIONS = {"type": "integer", "minimum": 1, "maximum": 10_000, "description": "A number of sessions."}
_BACK = {**_SESSIONS, "minimum": 0}
_ROW = {
    "$schema": _SCHEMA,
    "description": "One row for each of the inputs'.",
    "type": "object",
    "properties": {
        DATE: {"type": "string", "format": "date", "description": "The session."},
        ENTITY: {"type": "string", "description": "What the value belongs to."},
        VALUE: {"type": ["number", "null"], "description": "The result; null where there is none."},
    },
    "required": [*KEYS, VALUE],
}

# For each macro by name: its description, and the schemas of its parameters.
_MACROS: Mapping[str, tuple[str, Mapping[str, Mapping[str, Any]]]] = {
    "MOMENTUM": (
        "Cross-sectional score of the return from `long` to `short` sessions ago.",
        {"x": _VALUE, "long": _SESSIONS, "short": _BACK},
    ),
    "REVERSAL": (
        "Cross-sectional score against the return of the last n sessions.",
        {"x": _VALUE, "n": _SESSIONS},
    ),
    "VOLATILITY": (
        "Standard deviation of the daily log returns of the last n sessions.",
        {"x": _VALUE, "n": {**_SESSIONS, "minimum": 2}},
    ),
    "SHARPE": (
        "Mean over standard deviation of the daily returns of the last n sessions.",
        {"x": _VALUE, "n": {**_SESSIONS, "minimum": 2}},
    ),
    "DRAWDOWN": (
        "How far below the largest of the last n sessions; 0 at the largest itself.",
        {"x": _VALUE, "n": _SESSIONS},
    ),
    "TREND": (
        "How far the fast moving average lies above the slow one.",
        {"x": _VALUE, "fast": _SESSIONS, "slow": _SESSIONS},
    ),
}


def _make_class(signature: Signature) -> type[Operator]:
    """Make the class of an operator of the language, as other packages write theirs by hand."""

    def compute(_: Operator, values: Sequence[pl.Expr], parameters: Sequence[float]) -> pl.Expr:
        return IMPLEMENTATIONS[signature.name](values, parameters)

    members = {
        "__doc__": f"`{signature.usage}`: {signature.summary}.",
        "__module__": _MODULE,
        "name": signature.name,
        "scope": signature.scope,
        "values": signature.values,
        "parameters": signature.parameters,
        "summary": signature.summary,
        "signature": classmethod(lambda _: signature),
        "warm_up": staticmethod(signature.warm_up),
        "compile": compute,
    }
    return type(signature.name.title(), (Operator,), members)


CLASSES: Mapping[str, type[Operator]] = {name: _make_class(found) for name, found in OPERATORS.items()}
globals().update({found.__name__: found for found in CLASSES.values()})  # so that a `code_ref` finds them


def operator_manifests() -> list[dict[str, Any]]:
    """Return a definition for each operator."""
    manifests = []
    for signature in OPERATORS.values():
        summary = f"`{signature.usage}`: {signature.summary}."
        properties = dict(_properties(signature))
        is_first = signature.name in FIRST_OPERATORS
        later = [name for name in properties if is_first and name in _LATER]
        first = {name: described for name, described in properties.items() if name not in later}
        releases = [("1.0.0", "First version.", first)]
        if later:
            releases.append(("1.1.0", f"Adds {' and '.join(later)}.", properties))
        required = [
            *signature.names,
            *(given.name for given in signature.parameters if not given.is_optional),
        ]
        for number, description, described in releases:
            version = {
                "code_ref": f"{_MODULE}:{CLASSES[signature.name].__name__}",
                "parameters_schema": _parameters(described, required),
            }
            manifests.append(_manifest("OP", signature.name, summary, version, number, description))
    return manifests


def _properties(signature: Signature) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield the schema of each argument of an operator."""
    for name in signature.names:
        yield name, dict(_VALUE)
    for parameter in signature.parameters:
        yield parameter.name, _number(parameter)
    if signature.has_group:
        yield GROUP, dict(_GROUP)


def macro_manifests() -> list[dict[str, Any]]:
    """Return a definition for each built-in macro."""
    manifests = []
    for name, (summary, parameters) in _MACROS.items():
        version = {
            "op_macro": {"parameters": list(MACROS[name].parameters), "expression": MACROS[name].text},
            "parameters_schema": _parameters(parameters, list(parameters)),
        }
        manifests.append(_manifest("OP_MACRO", name, summary, version))
    return manifests


def _manifest(
    kind: str,
    name: str,
    summary: str,
    version: Mapping[str, Any],
    number: str = "1.0.0",
    description: str = "First version.",
) -> dict[str, Any]:
    return {
        "name": name,
        "kind": f"DEFINITION_KIND_{kind}",
        "description": summary,
        "definition_version": {
            "version": number,
            "description": description,
            **version,
            "output_schema": _ROW,
            "flow_specs": [{"flow_kind": "FLOW_KIND_PREVIEW", "is_default": True}],
        },
    }


def _parameters(properties: Mapping[str, Any], required: Sequence[str]) -> dict[str, Any]:
    return {
        "$schema": _SCHEMA,
        "type": "object",
        "properties": dict(properties),
        "required": list(required),
        "additionalProperties": False,
    }


def _number(parameter: Parameter) -> dict[str, Any]:
    given: dict[str, Any] = {
        "type": "integer" if parameter.is_integer else "number",
        "minimum": int(parameter.minimum) if parameter.is_integer else parameter.minimum,
        "maximum": int(parameter.maximum) if parameter.is_integer else parameter.maximum,
        "description": _DESCRIPTIONS.get(parameter.name, "A share."),
    }
    if parameter.default is None:
        return given
    return {**given, "default": int(parameter.default) if parameter.is_integer else parameter.default}


def _write(folder: Path) -> None:
    for name, manifests in (("operators", operator_manifests()), ("macros", macro_manifests())):
        lines = ",\n".join(json.dumps(manifest) for manifest in manifests)
        (folder / f"{name}.json").write_text(f"[\n{lines}\n]\n", encoding="utf-8")


if __name__ == "__main__":
    _write(Path(sys.argv[1]))
