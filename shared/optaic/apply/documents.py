"""Convert documents to messages with names in place of ids; looks nothing up."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import grpc

from optaic.apply import fields
from optaic.definition.v1 import definition_pb2
from optaic.definition.v1.definition_service_pb2 import PublishDefinitionRequest
from optaic.errors import InvalidArgumentError, Violation
from optaic.instance.v1.instance_pb2 import Instance
from optaic.rules.kinds import OWN_KINDS

MANAGER = "optaic/manager"
STATES = ("draft", "active", "deprecated", "retired")
_KEYS = ("project", "manager", "definitions", "instances")
_DEFINITION_KEYS = ("name", "kind", "description", "definition_version", "state")


@dataclass(frozen=True)
class DefinitionEntry:
    """One version of a definition, and the state it should have; without one, any state will do."""

    path: str
    request: PublishDefinitionRequest
    state: str


@dataclass(frozen=True)
class InstanceEntry:
    """One instance of a document; its references hold names."""

    path: str
    instance: Instance


@dataclass(frozen=True)
class Document:
    """The definitions and instances that one manager wants in one project."""

    path: str
    project: str
    manager: str
    definitions: tuple[DefinitionEntry, ...]
    instances: tuple[InstanceEntry, ...]


def read_documents(values: Sequence[Any]) -> list[Document]:
    """Return documents of plain values.

    Raises:
        InvalidArgumentError: INVALID_DOCUMENT; `violations` has every mistake's path.
    """
    problems: list[Violation] = []
    documents = [_document(value, f"documents[{index}]", problems) for index, value in enumerate(values)]
    problems += _duplicates(
        ((entry.request.kind, entry.request.name, entry.request.definition_version.version), entry.path)
        for document in documents
        for entry in document.definitions
    )
    problems += _duplicates(
        ((document.project, entry.instance.name), f"{entry.path}.name")
        for document in documents
        for entry in document.instances
    )
    refuse(problems)
    return documents


def refuse(problems: Sequence[Violation]) -> None:
    """Raise an error with everything that is wrong with the documents, if anything is.

    Raises:
        InvalidArgumentError: INVALID_DOCUMENT.
    """
    if problems:
        text = f"the documents have {len(problems)} mistake{'s' if len(problems) > 1 else ''}"
        code = grpc.StatusCode.INVALID_ARGUMENT
        raise InvalidArgumentError(code, "INVALID_DOCUMENT", text, problems)


def _document(value: Any, path: str, problems: list[Violation]) -> Document:
    value = _mapping(value, path, _KEYS, problems)
    texts = {}
    for key in ("project", "manager"):
        texts[key] = value.get(key, "")
        if not isinstance(texts[key], str):
            problems.append(Violation(f"{path}.{key}", "must be text", "INVALID_VALUE"))
        elif not texts[key] and ("instances" in value or key in value):
            problems.append(Violation(f"{path}.{key}", "is required with instances", "REQUIRED"))
    return Document(
        path,
        str(texts["project"]),
        str(texts["manager"]),
        tuple(
            _definition(each, where, problems) for each, where in _list(value, path, "definitions", problems)
        ),
        tuple(_instance(each, where, problems) for each, where in _list(value, path, "instances", problems)),
    )


def _definition(value: Any, path: str, problems: list[Violation]) -> DefinitionEntry:
    value = dict(_mapping(value, path, _DEFINITION_KEYS, problems))
    state = value.pop("state", "")
    if state not in ("", *STATES):
        problems.append(Violation(f"{path}.state", f"must be one of {', '.join(STATES)}", "INVALID_VALUE"))
        state = ""
    request = PublishDefinitionRequest()
    given = {key: value[key] for key in _DEFINITION_KEYS if key in value}
    fields.fill(request, given, path, problems)
    problems += [
        Violation(f"{path}.{name}", "is required", "REQUIRED")
        for name in ("name", "kind")
        if not getattr(request, name) and name not in value
    ]
    if not request.definition_version.version:
        problems.append(Violation(f"{path}.definition_version.version", "is required", "REQUIRED"))
    return DefinitionEntry(path, request, state)


def _instance(value: Any, path: str, problems: list[Violation]) -> InstanceEntry:
    instance = Instance()
    if not isinstance(value, Mapping):
        problems.append(Violation(path, "must be a mapping", "INVALID_VALUE"))
        return InstanceEntry(path, instance)
    value = dict(value)
    upstreams = value.pop("upstreams", {})
    if "upstream_refs" in value:
        value.pop("upstream_refs")
        text = "is not a field of a document; write `upstreams: {role: name}` instead"
        problems.append(Violation(f"{path}.upstream_refs", text, "UNKNOWN_FIELD"))
    fields.fill(instance, value, path, problems)
    _add_upstreams(instance, upstreams, f"{path}.upstreams", problems)
    if not instance.name and value.get("name", "") == "":
        problems.append(Violation(f"{path}.name", "is required", "REQUIRED"))
    if not any(name in value for name in OWN_KINDS):
        text = f"must say what it is: {', '.join(OWN_KINDS)}"
        problems.append(Violation(path, text, "REQUIRED"))
    if MANAGER in instance.labels:
        text = "must not be set; OptAIC sets this label from the document's `manager`"
        problems.append(Violation(f"{path}.labels.{MANAGER}", text, "INVALID_VALUE"))
    return InstanceEntry(path, instance)


def _add_upstreams(instance: Instance, upstreams: Any, path: str, problems: list[Violation]) -> None:
    if not isinstance(upstreams, Mapping):
        problems.append(Violation(path, "must be a mapping of roles to names of instances", "INVALID_VALUE"))
        return
    for role in sorted(upstreams, key=str):
        given = upstreams[role]
        names = given if isinstance(given, list) else [given]
        for name in names:
            if isinstance(role, str) and isinstance(name, str) and name:
                instance.upstream_refs.add(resource_id=name, role=role)
            else:
                text = "must be the name of an instance, or a list of names"
                problems.append(Violation(f"{path}.{role}", text, "INVALID_VALUE"))


def entry_of(instance: Instance) -> dict[str, Any]:
    """Return the document entry of an instance whose references hold names."""
    entry = fields.plain(instance)
    if references := entry.pop("upstream_refs", None):
        upstreams: dict[str, list[str]] = {}
        for reference in references:
            upstreams.setdefault(reference["role"], []).append(reference["resource_id"])
        entry["upstreams"] = {
            role: names[0] if len(names) == 1 else names for role, names in upstreams.items()
        }
    return entry


def definition_entry_of(version: definition_pb2.DefinitionVersion, description: str) -> dict[str, Any]:
    """Return the document entry of a published version."""
    request = PublishDefinitionRequest(
        name=version.definition_name,
        kind=version.kind,
        description=description,
        definition_version=version,
    )
    entry = fields.plain(request)
    state = definition_pb2.DefinitionState.Name(version.state).removeprefix("DEFINITION_STATE_").lower()
    return entry if state == "active" else {**entry, "state": state}


def _mapping(value: Any, path: str, keys: Sequence[str], problems: list[Violation]) -> Mapping[str, Any]:
    if not isinstance(value, Mapping):
        problems.append(Violation(path, "must be a mapping", "INVALID_VALUE"))
        return {}
    for key in value:
        if key not in keys:
            text = f"is not a known field; the known fields are {', '.join(keys)}"
            problems.append(Violation(f"{path}.{key}", text, "UNKNOWN_FIELD"))
    return {key: value[key] for key in keys if key in value}


def _list(value: Mapping[str, Any], path: str, key: str, problems: list[Violation]) -> list[tuple[Any, str]]:
    items = value.get(key, [])
    if not isinstance(items, list):
        problems.append(Violation(f"{path}.{key}", "must be a list", "INVALID_VALUE"))
        return []
    return [(item, f"{path}.{key}[{index}]") for index, item in enumerate(items)]


def _duplicates(named: Iterable[tuple[tuple[Any, ...], str]]) -> Iterable[Violation]:
    first: dict[tuple[Any, ...], str] = {}
    for key, path in named:
        if (known := first.setdefault(key, path)) != path and all(key):
            yield Violation(path, f"is a duplicate of {known}; remove one of them", "DUPLICATE_NAME")
