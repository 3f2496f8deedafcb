"""The expression language as definitions: a class for each operator, and the manifests of operators and macros.

`python -m worker.builtin.language services/instance_service/builtin` rewrites the manifests; a test compares them.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import polars as pl

from optaic.expression import OPERATORS, Macro, Parameter, Signature
from optaic.expression.compiler import IMPLEMENTATIONS
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

# For each macro by name: its description, its expression, and the schemas of its parameters.
_MACROS: Mapping[str, tuple[str, str, Mapping[str, Mapping[str, Any]]]] = {
    "MOMENTUM": (
        "Cross-sectional score of the return from `long` to `short` sessions ago.",
        "ZSCORE(REF(x, short) / REF(x, long) - 1)",
        {"x": _VALUE, "long": _SESSIONS, "short": _BACK},
    ),
    "REVERSAL": (
        "Cross-sectional score against the return of the last n sessions.",
        "-ZSCORE(PCT(x, n))",
        {"x": _VALUE, "n": _SESSIONS},
    ),
    "VOLATILITY": (
        "Standard deviation of the daily log returns of the last n sessions.",
        "STD(LOG(x / REF(x, 1)), n)",
        {"x": _VALUE, "n": {**_SESSIONS, "minimum": 2}},
    ),
    "SHARPE": (
        "Mean over standard deviation of the daily returns of the last n sessions.",
        "MEAN(PCT(x, 1), n) / STD(PCT(x, 1), n)",
        {"x": _VALUE, "n": {**_SESSIONS, "minimum": 2}},
    ),
    "DRAWDOWN": (
        "How far below the largest of the last n sessions; 0 at the largest itself.",
        "x / MAX(x, n) - 1",
        {"x": _VALUE, "n": _SESSIONS},
    ),
    "TREND": (
        "How far the fast moving average lies above the slow one.",
        "EMA(x, fast) / EMA(x, slow) - 1",
        {"x": _VALUE, "fast": _SESSIONS, "slow": _SESSIONS},
    ),
}
MACROS: Mapping[str, Macro] = {
    name: Macro(name, tuple(parameters), text) for name, (_, text, parameters) in _MACROS.items()
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
        "compile": compute,
    }
    return type(signature.name.title(), (Operator,), members)


CLASSES: Mapping[str, type[Operator]] = {name: _make_class(found) for name, found in OPERATORS.items()}
globals().update({found.__name__: found for found in CLASSES.values()})  # so that a `code_ref` finds them


def operator_manifests() -> list[dict[str, Any]]:
    """Return a definition for each operator."""
    manifests = []
    for signature in OPERATORS.values():
        values = dict.fromkeys("xyz"[: signature.values], _VALUE)
        numbers = {parameter.name: _number(parameter) for parameter in signature.parameters}
        required = [*values, *(given.name for given in signature.parameters if given.default is None)]
        version = {
            "code_ref": f"{_MODULE}:{CLASSES[signature.name].__name__}",
            "parameters_schema": _parameters({**values, **numbers}, required),
        }
        summary = f"`{signature.usage}`: {signature.summary}."
        manifests.append(_manifest("OP", signature.name, summary, version))
    return manifests


def macro_manifests() -> list[dict[str, Any]]:
    """Return a definition for each built-in macro."""
    manifests = []
    for name, (summary, text, parameters) in _MACROS.items():
        version = {
            "op_macro": {"parameters": list(parameters), "expression": text},
            "parameters_schema": _parameters(parameters, list(parameters)),
        }
        manifests.append(_manifest("OP_MACRO", name, summary, version))
    return manifests


def _manifest(kind: str, name: str, summary: str, version: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "name": name,
        "kind": f"DEFINITION_KIND_{kind}",
        "description": summary,
        "definition_version": {
            "version": "1.0.0",
            "description": "First version.",
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
        "description": "A number of sessions." if parameter.is_integer else "A share.",
    }
    return given if parameter.default is None else {**given, "default": parameter.default}


def _write(folder: Path) -> None:
    for name, manifests in (("operators", operator_manifests()), ("macros", macro_manifests())):
        lines = ",\n".join(json.dumps(manifest) for manifest in manifests)
        (folder / f"{name}.json").write_text(f"[\n{lines}\n]\n", encoding="utf-8")


if __name__ == "__main__":
    _write(Path(sys.argv[1]))
