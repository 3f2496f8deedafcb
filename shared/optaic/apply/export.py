"""Export what exists as documents; applying them changes nothing."""

from __future__ import annotations

from collections.abc import Iterable
from enum import StrEnum
from typing import Any

from optaic.apply import references
from optaic.apply.documents import MANAGER, definition_entry_of, entry_of
from optaic.apply.plan import Existing
from optaic.definition.v1 import definition_pb2
from optaic.instance.v1.instance_pb2 import INSTANCE_STATE_PAUSED, Instance
from redaction import HIDDEN, PREFIX, has_credentials, hide_credentials
from redaction.messages import texts_of

UNMANAGED = "export"
PLACEHOLDER = f"${{{PREFIX}REPLACE_ME}}"
_BUILTIN = "worker.builtin."


class Definitions(StrEnum):
    """The choice of definition versions to export."""

    NONE = "none"
    USED = "used"  # by the instances, and not brought by the service itself
    ALL = "all"


def export_documents(
    existing: Existing, *, manager: str = UNMANAGED, definitions: Definitions = Definitions.USED
) -> list[dict[str, Any]]:
    """Return the definitions in one document, then one for each project and manager.

    Args:
        existing: What there is.
        manager: The manager to write for instances that have none.
        definitions: Which versions of definitions are exported.
    """
    documents: dict[tuple[str, str], list[dict[str, Any]]] = {}
    current = dict(sorted(existing.named().items()))
    known = references.Known.of(current, {})
    as_is = {key: references.as_document(each, key[0], known) for key, each in current.items()}
    owners = {key: each.labels.get(MANAGER, "") for key, each in current.items()}
    for key in references.in_order(as_is, {}, known, []):
        documents.setdefault((key[0], owners[key] or manager), []).append(
            _without_credentials(entry_of(references.without_defaults(as_is[key], existing.newest)))
        )
    found: list[dict[str, Any]] = []
    if entries := _definitions(existing, definitions):
        found.append({"definitions": entries})
    for (project, owner), entries in sorted(documents.items()):
        found.append({"project": project, "manager": owner, "instances": entries})
    return found


def _without_credentials(value: Any) -> Any:
    """Return plain data with references in place of credentials in URLs, also in place of hidden ones."""
    if isinstance(value, str):
        return hide_credentials(value).replace(HIDDEN, PLACEHOLDER) if has_credentials(value) else value
    if isinstance(value, dict):
        return {name: _without_credentials(each) for name, each in value.items()}
    return [_without_credentials(each) for each in value] if isinstance(value, list) else value


def unsaid(existing: Existing) -> list[str]:
    """Return the facts that a document cannot contain."""
    named = sorted(existing.named().items())
    clear = [
        f"{project}/{name} has a URL with credentials in plain text; the document has {PLACEHOLDER} in their place. "
        "Set a variable OPTAIC_SECRET_... for the worker and write its name there"
        for (project, name), instance in named
        if any(has_credentials(each.text) for each in texts_of(instance))
    ]
    paused = [
        f"{project}/{name} is paused; a file cannot say so, and an instance created from the file runs on its schedule"
        for (project, name), instance in named
        if instance.state == INSTANCE_STATE_PAUSED
    ]
    unjudged = [
        f"{project}/{name}"
        for (project, name), instance in named
        if (dataset := references.dataset_of(instance)) and not dataset.HasField("max_deleted_share")
    ]
    if unjudged:
        text = "have no max_deleted_share because they are older than it; instances created from the file get the default"
        return [*clear, *paused, f"{', '.join(unjudged)} {text}"]
    return [*clear, *paused]


def _definitions(existing: Existing, which: Definitions) -> list[dict[str, Any]]:
    """Return versions, oldest first: a macro comes after those that it uses."""
    used = _used(existing.instances) if which is Definitions.USED else set()
    versions = [
        (version, existing.descriptions.get(key, ""))
        for key, each in existing.definitions.items()
        for version in each
        if which is Definitions.ALL
        or (version.definition_version_id in used and not _comes_by_itself(version, each))
    ]
    versions.sort(key=lambda each: _age(each[0]))
    return [definition_entry_of(version, description) for version, description in versions]


def _comes_by_itself(
    version: definition_pb2.DefinitionVersion, versions: Iterable[definition_pb2.DefinitionVersion]
) -> bool:
    """Return whether any service brings a version as it is: of the built-in ones only the newest are shipped."""
    return (
        (version.is_built_in or version.code_ref.startswith(_BUILTIN))
        and version.state == definition_pb2.DEFINITION_STATE_ACTIVE
        and version.definition_version_id == max(versions, key=_age).definition_version_id
    )


def _age(version: definition_pb2.DefinitionVersion) -> tuple[int, int, str, int, str]:
    made = version.create_time
    return made.seconds, made.nanos, version.definition_name, int(version.kind), version.version


def _used(instances: Iterable[Instance]) -> set[str]:
    """Return the ids of the versions that instances use, macros in expressions among them."""
    found: set[str] = set()
    for instance in instances:
        for _, spec in references.definition_users(instance):
            found |= {spec.definition_version_id, *spec.macro_version_ids.values()}
    return found
