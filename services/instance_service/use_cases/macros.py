"""Macros: what may be published as one, and which versions the expressions of a configuration mean."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from instance_service.domain.rules import refusal
from instance_service.jsonschema_adapter import expressions_of
from instance_service.store import instances as store
from instance_service.store.tables import Connection
from instance_service.use_cases.shapes import json_of
from optaic.definition.v1.definition_pb2 import (
    DEFINITION_KIND_OP_MACRO,
    DefinitionKind,
    DefinitionVersion,
)
from optaic.expression import OPERATORS, ExpressionError, Macro, check_macro, list_called
from servicekit.errors import FieldViolation

_INVALID = "INVALID_ARGUMENT"
_MOST = 256  # macros that one configuration may use; what uses more is refused as unknown


@dataclass(frozen=True)
class Calls:
    """What one configuration calls, and the versions that it has already, by name: pinned, or left for newer ones."""

    names: tuple[str, ...]
    held: Mapping[str, str]
    follows: bool = False

    def key(self, name: str) -> tuple[str, str, bool]:
        """Return what decides which version a name means."""
        return name, self.held.get(name, ""), self.follows


MacroVersions = Mapping[str, DefinitionVersion]  # by name in upper case


def macro_of(version: DefinitionVersion) -> Macro:
    """Return the macro that a version of an OP_MACRO is."""
    saved = version.op_macro
    return Macro(version.definition_name, tuple(saved.parameters), saved.expression)


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
    return violations


def _word(version: DefinitionVersion) -> str:
    return DefinitionKind.Name(version.kind).removeprefix("DEFINITION_KIND_")


async def check_publication(connection: Connection, tenant_id: str, version: DefinitionVersion) -> None:
    """Refuse a macro that no expression could use.

    Raises:
        InvalidArgumentError: Its expression does not parse, calls what is not there, or uses itself.
    """
    macro = macro_of(version)
    found = await load_inner(connection, tenant_id, version)
    try:
        check_macro(macro, macros={name: macro_of(called) for name, called in found.items()})
    except ExpressionError as error:
        text = f"{error.reason}: {error.message} (line {error.line}, column {error.column})"
        field = "definition_version.op_macro.expression"
        if macro.mistake or macro.name in OPERATORS:
            is_named = macro.name == macro.name.upper() and macro.name not in OPERATORS
            field = "definition_version.op_macro.parameters" if is_named else "name"
        raise refusal([FieldViolation(field, text, "INVALID_EXPRESSION")]) from error


async def load_inner(
    connection: Connection, tenant_id: str, version: DefinitionVersion
) -> dict[str, DefinitionVersion]:
    """Return the macros that a macro uses, by name."""
    calls = Calls(_called([version.op_macro.expression]), {})
    (found,) = await load_macros(connection, tenant_id, [calls])
    return found


async def load_macros(
    connection: Connection, tenant_id: str, calls: Sequence[Calls]
) -> list[dict[str, DefinitionVersion]]:
    """Return for each configuration the macros that it uses, also those within other macros.

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
        ("op_macro", "", name, "" if follows else held_id, "", held_id if follows else "")
        for name, held_id, follows in keys
    ]
    rows = await store.resolve_versions(connection, tenant_id, wanted)
    return {
        key: DefinitionVersion.FromString(rows[position]) if position in rows else None
        for position, key in enumerate(keys)
    }
