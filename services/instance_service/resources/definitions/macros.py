"""Macros and operators: what may be published as one, and which versions the expressions of a configuration mean."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from instance_service.domain import errors
from instance_service.jsonschema_adapter import expressions_of
from instance_service.resources.conversion import json_of
from instance_service.resources.definitions.operators import op_violations, signature_of
from instance_service.store import definitions
from instance_service.store import instances as store
from instance_service.store.tables import Connection
from optaic.definition.v1.definition_pb2 import (
    DEFINITION_KIND_OP,
    DEFINITION_KIND_OP_MACRO,
    DefinitionKind,
    DefinitionVersion,
)
from optaic.expression import OPERATORS, ExpressionError, Macro, Signature, check_macro, list_called
from servicekit.enums import enum_word
from servicekit.errors import FieldViolation

_INVALID = "INVALID_ARGUMENT"
_MOST = 256  # macros that one configuration may use; what uses more is refused as unknown
CALLABLE = {DEFINITION_KIND_OP: "op", DEFINITION_KIND_OP_MACRO: "op_macro"}  # by name, in expressions


@dataclass(frozen=True)
class Calls:
    """What one configuration calls, and the versions that it has already, by name: pinned, or left for newer ones."""

    names: tuple[str, ...]
    held: Mapping[str, str]
    follows: bool = False

    def key(self, name: str) -> tuple[str, str, bool]:
        """Return what decides which version a name means."""
        return name, self.held.get(name, ""), self.follows


# Macros, and operators that are not the language's own, by name in upper case.
MacroVersions = Mapping[str, DefinitionVersion]


def macro_of(version: DefinitionVersion) -> Macro:
    """Return the macro that a version of an OP_MACRO is."""
    saved = version.op_macro
    return Macro(version.definition_name, tuple(saved.parameters), saved.expression)


def library_of(found: MacroVersions) -> tuple[dict[str, Signature], dict[str, Macro]]:
    """Return the operators and the macros that expressions may call, the language's own among them."""
    operators = {name: signature_of(version) for name, version in found.items() if version.HasField("op")}
    macros = {name: macro_of(version) for name, version in found.items() if version.HasField("op_macro")}
    return {**OPERATORS, **operators}, macros


def calls_of(version: DefinitionVersion, config: Mapping[str, object]) -> tuple[str, ...]:
    """Return what a configuration's expressions, and the version itself where it is a macro, call by name."""
    texts = [] if not version.HasField("op_macro") else [version.op_macro.expression]
    texts.extend(expressions_of(version.content_hash, json_of(version.parameters_schema), config))
    return _called(texts)


def _called(texts: Iterable[str]) -> tuple[str, ...]:
    names: dict[str, None] = {}
    for text in texts:
        try:
            names.update(dict.fromkeys(list_called(text)))
        except ExpressionError:
            continue  # the check of the configuration says so, with its path
    return tuple(names)


def shape_violations(version: DefinitionVersion) -> list[FieldViolation]:
    """Return what a version of this kind must have and has not, or has and must not."""
    if version.kind != DEFINITION_KIND_OP_MACRO:
        wanted, strays = "code_ref", {"op_macro": version.HasField("op_macro")}
    else:
        wanted, strays = "op_macro", {"code_ref": bool(version.code_ref)}
    is_there = version.HasField("op_macro") if wanted == "op_macro" else bool(version.code_ref)
    violations = [
        FieldViolation(f"definition_version.{name}", f"a {_word(version)} has {wanted} instead", _INVALID)
        for name, is_given in strays.items()
        if is_given
    ]
    if not is_there:
        violations.append(FieldViolation(f"definition_version.{wanted}", "is required", _INVALID))
    return [*violations, *op_violations(version)]


def _word(version: DefinitionVersion) -> str:
    return enum_word(DefinitionKind, version.kind).upper()


async def check_publication(connection: Connection, tenant_id: str, version: DefinitionVersion) -> None:
    """Refuse a macro or an operator that no expression could use.

    Raises:
        InvalidArgumentError: A macro's expression does not parse, calls what is not there, or uses itself; or a macro
            and an operator would have one name.
    """
    for kind in CALLABLE.values():
        if kind != enum_word(DefinitionKind, version.kind) and await definitions.get_definition_by_name(
            connection, tenant_id, kind, version.definition_name
        ):
            text = f"there is a definition {version.definition_name} of the kind {kind.upper()}"
            raise errors.refusal([FieldViolation("name", text, "INVALID_EXPRESSION")])
    if version.kind != DEFINITION_KIND_OP_MACRO:
        return
    macro = macro_of(version)
    operators, macros = library_of(await load_inner(connection, tenant_id, version))
    try:
        check_macro(macro, operators, macros)
    except ExpressionError as error:
        text = f"{error.reason}: {error.message} (line {error.line}, column {error.column})"
        field = "definition_version.op_macro.expression"
        if macro.mistake or macro.name in OPERATORS:
            is_named = macro.name == macro.name.upper() and macro.name not in OPERATORS
            field = "definition_version.op_macro.parameters" if is_named else "name"
        raise errors.refusal([FieldViolation(field, text, "INVALID_EXPRESSION")]) from error


async def load_inner(
    connection: Connection, tenant_id: str, version: DefinitionVersion
) -> dict[str, DefinitionVersion]:
    """Return what a macro uses, by name."""
    calls = Calls(_called([version.op_macro.expression]), {})
    (found,) = await load_macros(connection, tenant_id, [calls])
    return found


async def load_macros(
    connection: Connection, tenant_id: str, calls: Sequence[Calls]
) -> list[dict[str, DefinitionVersion]]:
    """Return for each configuration the macros and operators that it uses, also those within macros.

    A pinned name keeps its version; any other means the newest active one, or the held one where that is newer.
    What does not exist is left out.
    """
    found: list[dict[str, DefinitionVersion]] = [{} for _ in calls]
    known: dict[tuple[str, str, bool], DefinitionVersion | None] = {}
    wanted = [set(one.names) for one in calls]
    asked: list[set[str]] = [set() for _ in calls]
    while any(wanted):
        keys = sorted(
            {one.key(name) for one, names in zip(calls, wanted, strict=True) for name in names} - set(known)
        )
        known.update(await _load(connection, tenant_id, keys))
        for one, names, seen, macros in zip(calls, wanted, asked, found, strict=True):
            seen.update(names)
            versions = [known[one.key(name)] for name in sorted(names)]
            macros.update({version.definition_name: version for version in versions if version is not None})
            inner = _called(version.op_macro.expression for version in versions if version is not None)
            names.clear()
            if len(seen) < _MOST:
                names.update(name for name in inner if name not in seen)
    return found


async def _load(
    connection: Connection, tenant_id: str, keys: Sequence[tuple[str, str, bool]]
) -> dict[tuple[str, str, bool], DefinitionVersion | None]:
    if not keys:
        return {}
    wanted = [
        (kind, "", name, "" if follows else held_id, "", held_id if follows else "")
        for name, held_id, follows in keys
        for kind in CALLABLE.values()
    ]
    rows = await store.resolve_versions(connection, tenant_id, wanted)
    known: dict[tuple[str, str, bool], DefinitionVersion | None] = dict.fromkeys(keys)
    for position, row in sorted(rows.items()):
        version = DefinitionVersion.FromString(row)
        if version.HasField("op") or version.HasField("op_macro"):
            known[keys[position // len(CALLABLE)]] = version
    return known
