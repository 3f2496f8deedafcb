"""Look up the macros and operators of a tenant that expressions call by name."""

from __future__ import annotations

from collections.abc import Sequence

from instance_service.domain import errors
from instance_service.resources.definitions.macros import (
    CALLABLE,
    Calls,
    macro_violations,
    names_called,
    namesake_violations,
)
from instance_service.store import definitions
from instance_service.store import instances as store
from optaic.definition.v1.definition_pb2 import (
    DEFINITION_KIND_OP,
    DEFINITION_KIND_OP_MACRO,
    DefinitionKind,
    DefinitionVersion,
)
from optaic.expression import OPERATORS
from servicekit import off_loop
from servicekit.database import Connection
from servicekit.enums import enum_word
from servicekit.errors import FieldViolation

_MOST = 256  # macros that one configuration may use; further ones are refused as unknown


async def check_publication(connection: Connection, tenant_id: str, version: DefinitionVersion) -> None:
    """Refuse to publish a macro or an operator that no expression could use.

    Raises:
        InvalidArgumentError: A macro's expression does not parse, calls an unknown name, or uses itself; or a macro
            and an operator would share one name.
    """
    others = [kind for kind in CALLABLE.values() if kind != enum_word(DefinitionKind, version.kind)]
    taken = [
        kind
        for kind in others
        if await definitions.get_definition_by_name(connection, tenant_id, kind, version.definition_name)
    ]
    violations = namesake_violations(version, taken)
    is_built_in = version.kind == DEFINITION_KIND_OP and not version.HasField("op")
    if is_built_in and version.definition_name in OPERATORS and not violations:
        violations = await _own_violations(connection, tenant_id, version)
    if not violations and version.kind == DEFINITION_KIND_OP_MACRO:
        inner = await load_inner(connection, tenant_id, version)
        violations = await off_loop.run(macro_violations, version, inner)
    if violations:
        raise errors.refusal(violations)


async def _own_violations(
    connection: Connection, tenant_id: str, version: DefinitionVersion
) -> list[FieldViolation]:
    """Return a violation if a built-in operator would become a version of an operator of the tenant's own."""
    rows = await definitions.list_versions(connection, tenant_id, version.definition_id, None, _MOST)
    if not any(DefinitionVersion.FromString(row.snapshot).HasField("op") for row in rows):
        return []
    text = (
        f"{version.definition_name} is already an operator of this tenant's own, which its expressions keep calling; "
        "the built-in operator of this name is not published here"
    )
    return [FieldViolation("name", text, "INVALID_EXPRESSION")]


async def load_inner(
    connection: Connection, tenant_id: str, version: DefinitionVersion
) -> dict[str, DefinitionVersion]:
    """Return the macros and operators that a macro uses, by name."""
    calls = Calls(await off_loop.run(names_called, [version.op_macro.expression]), {})
    (found,) = await load_macros(connection, tenant_id, [calls])
    return found


async def load_macros(
    connection: Connection, tenant_id: str, calls: Sequence[Calls]
) -> list[dict[str, DefinitionVersion]]:
    """Return for each configuration the macros and operators that it uses, including those inside macros.

    A pinned name keeps its version. Any other name means the newest active version, or the held one if that is newer.
    Names that do not exist are omitted.
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
            texts = [version.op_macro.expression for version in versions if version is not None]
            inner = await off_loop.run(names_called, texts) if texts else ()
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
