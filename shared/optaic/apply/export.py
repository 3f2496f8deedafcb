"""What exists as documents, which change nothing when they are applied."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from optaic.apply import references
from optaic.apply.documents import MANAGER, definition_entry_of, entry_of
from optaic.apply.plan import Existing
from optaic.definition.v1 import definition_pb2
from optaic.instance.v1.instance_pb2 import Instance

UNMANAGED = "export"


def export_documents(
    existing: Existing, *, manager: str = UNMANAGED, definitions: bool = True, only_used: bool = False
) -> list[dict[str, Any]]:
    """Return the definitions in one document, then one for each project and manager.

    Args:
        existing: What there is.
        manager: Of what nobody manages.
        definitions: Whether definitions are told.
        only_used: Only the versions that the instances use.
    """
    documents: dict[tuple[str, str], list[dict[str, Any]]] = {}
    as_is = {key: references.as_document(each, existing.instances) for key, each in existing.named().items()}
    owners = {key: each.labels.get(MANAGER, "") for key, each in existing.named().items()}
    for key in references.in_order(as_is, {}, []):
        documents.setdefault((key[0], owners[key] or manager), []).append(entry_of(as_is[key]))
    found: list[dict[str, Any]] = []
    if definitions and (entries := _definitions(existing, _used(existing.instances) if only_used else None)):
        found.append({"definitions": entries})
    for (project, owner), entries in sorted(documents.items()):
        found.append({"project": project, "manager": owner, "instances": entries})
    return found


def _definitions(existing: Existing, used: set[str] | None) -> list[dict[str, Any]]:
    """Return versions, oldest first: a macro comes after those that it uses."""
    versions = [
        (version, existing.descriptions.get(key, ""))
        for key, each in existing.definitions.items()
        for version in each
        if used is None or version.definition_version_id in used
    ]
    versions.sort(key=lambda each: _age(each[0]))
    return [definition_entry_of(version, description) for version, description in versions]


def _age(version: definition_pb2.DefinitionVersion) -> tuple[int, int, str]:
    return version.create_time.seconds, version.create_time.nanos, version.definition_name


def _used(instances: Iterable[Instance]) -> set[str]:
    """Return the ids of the versions that instances use, macros in expressions among them."""
    found: set[str] = set()
    for instance in instances:
        for _, spec in references.definition_users(instance):
            found |= {spec.definition_version_id, *spec.macro_version_ids.values()}
    return found
