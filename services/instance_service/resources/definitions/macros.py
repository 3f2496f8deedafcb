"""Check macros, and find the names that the expressions of a configuration call; no database is read."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from instance_service.jsonschema_adapter import expressions_of
from instance_service.resources.conversion import json_of
from instance_service.resources.definitions.operators import op_violations, signature_of
from optaic.definition.v1.definition_pb2 import (
    DEFINITION_KIND_OP,
    DEFINITION_KIND_OP_MACRO,
    DefinitionKind,
    DefinitionVersion,
)
from optaic.expression import (
    FIRST_OPERATORS,
    OPERATORS,
    ExpressionError,
    Macro,
    Signature,
    check_macro,
    list_called,
)
from servicekit.enums import enum_word
from servicekit.errors import FieldViolation

_INVALID = "INVALID_ARGUMENT"
CALLABLE = {DEFINITION_KIND_OP: "op", DEFINITION_KIND_OP_MACRO: "op_macro"}  # expressions call these by name


@dataclass(frozen=True)
class Calls:
    """Hold the names that one configuration calls, and the versions that it already has, by name."""

    names: tuple[str, ...]
    held: Mapping[str, str]
    follows: bool = False

    def key(self, name: str) -> tuple[str, str, bool]:
        """Return the key that decides which version a name means."""
        return name, self.held.get(name, ""), self.follows


# Macros, and operators that are not built into the language, by upper-case name.
MacroVersions = Mapping[str, DefinitionVersion]


def macro_of(version: DefinitionVersion) -> Macro:
    """Return the macro that an OP_MACRO version defines."""
    saved = version.op_macro
    return Macro(version.definition_name, tuple(saved.parameters), saved.expression)


def library_of(found: MacroVersions) -> tuple[dict[str, Signature], dict[str, Macro]]:
    """Return the operators and macros that expressions may call, including the built-in operators."""
    operators = {name: signature_of(version) for name, version in found.items() if version.HasField("op")}
    macros = {name: macro_of(version) for name, version in found.items() if version.HasField("op_macro")}
    return {**OPERATORS, **operators}, macros


def calls_of(version: DefinitionVersion, config: Mapping[str, object]) -> tuple[str, ...]:
    """Return the names that a configuration's expressions call, and for a macro those that it calls."""
    texts = [] if not version.HasField("op_macro") else [version.op_macro.expression]
    texts.extend(expressions_of(version.content_hash, json_of(version.parameters_schema), config))
    return names_called(texts)


def names_called(texts: Iterable[str]) -> tuple[str, ...]:
    """Return the names that expressions call; expressions that do not parse are skipped here and reported elsewhere.

    Operators that were added after the first release are among them: a tenant may have given that name to its own
    macro or operator before, and then still means that one.
    """
    names: dict[str, None] = {}
    for text in texts:
        try:
            names.update(dict.fromkeys(list_called(text, FIRST_OPERATORS)))
        except ExpressionError:
            continue  # the check of the configuration reports it with its path
    return tuple(names)


def shape_violations(version: DefinitionVersion) -> list[FieldViolation]:
    """Return a violation for each required field that is missing and each field that this kind must not have."""
    if version.kind != DEFINITION_KIND_OP_MACRO:
        wanted, strays = "code_ref", {"op_macro": version.HasField("op_macro")}
    else:
        wanted, strays = "op_macro", {"code_ref": bool(version.code_ref)}
    is_there = version.HasField("op_macro") if wanted == "op_macro" else bool(version.code_ref)
    violations = [
        FieldViolation(
            f"definition_version.{name}",
            f"cannot be set here; a {_word(version)} has {wanted}",
            _INVALID,
        )
        for name, is_given in strays.items()
        if is_given
    ]
    if not is_there:
        violations.append(FieldViolation(f"definition_version.{wanted}", "is required", _INVALID))
    return [*violations, *op_violations(version)]


def _word(version: DefinitionVersion) -> str:
    return enum_word(DefinitionKind, version.kind).upper()


def namesake_violations(version: DefinitionVersion, kinds: Iterable[str]) -> list[FieldViolation]:
    """Return a violation if other kinds already use the name of this macro or operator."""
    return [
        FieldViolation(
            "name",
            f"the name is already used by the {kind.upper()} definition {version.definition_name}; choose another name",
            "INVALID_EXPRESSION",
        )
        for kind in kinds
    ]


def macro_violations(version: DefinitionVersion, inner: MacroVersions) -> list[FieldViolation]:
    """Return why no expression could use a macro; `inner` holds the macros and operators that it calls."""
    macro = macro_of(version)
    operators, macros = library_of(inner)
    try:
        check_macro(macro, operators, macros)
    except ExpressionError as error:
        text = f"{error.reason}: {error.message} (line {error.line}, column {error.column})"
        field = "definition_version.op_macro.expression"
        if macro.mistake or macro.name in OPERATORS:
            is_named = macro.name == macro.name.upper() and macro.name not in OPERATORS
            field = "definition_version.op_macro.parameters" if is_named else "name"
        return [FieldViolation(field, text, "INVALID_EXPRESSION")]
    return []
