"""Compare documents with what exists and plan the actions in a working order; executes nothing."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

import grpc

from optaic.apply import fields, references
from optaic.apply.documents import MANAGER, STATES, DefinitionEntry, Document, InstanceEntry, refuse
from optaic.apply.references import Key, Known
from optaic.definition.v1 import definition_pb2
from optaic.errors import ConflictError, Violation
from optaic.instance.v1.instance_pb2 import Instance
from redaction.messages import restore_credentials

_NOT_CONTENT = ("description", "definition_name", "kind")
_MOVES = {"active": "activate", "deprecated": "deprecate", "retired": "retire"}


class Verb(StrEnum):
    """The verb of an action: create, change, delete and so on."""

    CREATE = "create"
    CHANGE = "change"
    DELETE = "delete"
    PUBLISH = "publish"
    ACTIVATE = "activate"
    DEPRECATE = "deprecate"
    RETIRE = "retire"


@dataclass(frozen=True)
class FieldChange:
    """One field that will be different; None where it is not set."""

    path: str
    before: Any
    after: Any


@dataclass(frozen=True)
class Action:
    """One thing to do."""

    verb: Verb
    kind: str
    name: str
    path: str = ""
    project: str = ""
    changes: tuple[FieldChange, ...] = ()
    mask: tuple[str, ...] = ()
    desired: Instance | DefinitionEntry | None = None
    current: Instance | None = None


@dataclass(frozen=True)
class Existing:
    """The existing state: project ids by name, versions by kind and name, and the live instances of those projects."""

    projects: Mapping[str, str] = field(default_factory=dict)
    definitions: Mapping[tuple[int, str], Sequence[definition_pb2.DefinitionVersion]] = field(
        default_factory=dict
    )
    descriptions: Mapping[tuple[int, str], str] = field(default_factory=dict)
    instances: Sequence[Instance] = ()
    newest: Mapping[tuple[int, str], str] = field(default_factory=dict)  # versions, by kind and name

    def named(self) -> dict[Key, Instance]:
        """Return the instances by project and name."""
        names = {project_id: name for name, project_id in self.projects.items()}
        return {(names[each.project_id], each.name): each for each in self.instances}


def make_plan(
    documents: Sequence[Document], existing: Existing, *, adopt: bool = False, prune: bool = False
) -> list[Action]:
    """Return the actions that make everything match the documents, upstreams before their dependants.

    Args:
        documents: What is wanted.
        existing: What is there.
        adopt: Take over and change instances that another manager owns.
        prune: Delete what the documents' managers made and the documents no longer have.

    Raises:
        InvalidArgumentError: INVALID_DOCUMENT; for example a name that is not there, or a cycle.
        ConflictError: APPLY_CONFLICT; for example something to change is another manager's.
    """
    current = existing.named()
    wanted = {
        (document.project, entry.instance.name): (document, entry)
        for document in documents
        for entry in document.instances
    }
    pruned = _pruned(documents, wanted, current) if prune else {}
    problems: list[Violation] = []
    known = Known.of(current, {key: entry.instance for key, (_, entry) in wanted.items()})
    desired = {
        key: references.named_instance(key[0], entry, wanted, current, pruned, known, problems)
        for key, (_, entry) in wanted.items()
    }
    references.check_definitions(documents, existing.definitions, problems)
    as_is = {key: references.as_document(each, key[0], known) for key, each in current.items()}
    order = references.in_order({**as_is, **desired}, wanted, known, problems)
    refuse(problems)

    conflicts: list[Violation] = []
    published, moved = _definitions(documents, existing, conflicts)
    instances = []
    for key in (each for each in order if each in wanted):
        document, entry = wanted[key]
        instances += _instance(
            document, entry, desired[key], (current.get(key), as_is.get(key)), adopt, conflicts
        )
    conflicts += _held(pruned, {**as_is, **desired}, known)
    deleted = [
        Action(Verb.DELETE, "instance", key[1], pruned[key], key[0], current=current[key])
        for key in reversed(order)
        if key in pruned
    ]
    _refuse_conflicts(conflicts)
    return [*_projects(documents, existing), *published, *instances, *deleted, *moved]


def _refuse_conflicts(conflicts: Sequence[Violation]) -> None:
    if conflicts:
        text = f"{len(conflicts)} entries of the documents cannot be applied"
        raise ConflictError(grpc.StatusCode.ABORTED, "APPLY_CONFLICT", text, conflicts)


def _projects(documents: Iterable[Document], existing: Existing) -> list[Action]:
    missing = {each.project: each.path for each in documents if each.project not in {"", *existing.projects}}
    return [Action(Verb.CREATE, "project", name, f"{path}.project") for name, path in missing.items()]


def _definitions(
    documents: Iterable[Document], existing: Existing, conflicts: list[Violation]
) -> tuple[list[Action], list[Action]]:
    """Return what to do before instances use the definitions, and what after."""
    before: list[Action] = []
    after: list[Action] = []
    for entry in (entry for document in documents for entry in document.definitions):
        request = entry.request
        number = request.definition_version.version
        versions = existing.definitions.get((request.kind, request.name), ())
        version = next((each for each in versions if each.version == number), None)
        name = f"{request.name} {number}"
        state = "draft" if entry.state == "draft" else "active"
        if version is None:
            before.append(Action(Verb.PUBLISH, "definition", name, entry.path, desired=entry))
        else:
            state = (
                definition_pb2.DefinitionState.Name(version.state).removeprefix("DEFINITION_STATE_").lower()
            )
            if _content(version) != _content(request.definition_version):
                text = f"version {number} is already published with different content; use another version number"
                path = f"{entry.path}.definition_version"
                conflicts.append(Violation(path, text, "VERSION_CONFLICT"))
                continue
        steps = STATES[STATES.index(state) + 1 : STATES.index(entry.state or state) + 1]
        if STATES.index(entry.state or state) < STATES.index(state):
            text = f"is {state} and cannot become {entry.state}; publish a new version instead"
            conflicts.append(Violation(f"{entry.path}.state", text, "INVALID_STATE"))
        for step in steps:
            move = Action(Verb(_MOVES[step]), "definition", name, f"{entry.path}.state", desired=entry)
            (before if step == "active" else after).append(move)
    return before, after


def _content(version: definition_pb2.DefinitionVersion) -> dict[str, Any]:
    return {key: value for key, value in fields.plain(version).items() if key not in _NOT_CONTENT}


def _instance(
    document: Document,
    entry: InstanceEntry,
    desired: Instance,
    existing: tuple[Instance | None, Instance | None],
    adopt: bool,
    conflicts: list[Violation],
) -> list[Action]:
    current, as_is = existing
    name, project = desired.name, document.project
    if current is None or as_is is None:
        created = references.completed(desired, None)
        created.labels[MANAGER] = document.manager
        return [Action(Verb.CREATE, "instance", name, entry.path, project, desired=created)]
    desired, as_is = references.completed(desired, as_is), references.completed(as_is, as_is)
    if (old := as_is.WhichOneof("spec")) != desired.WhichOneof("spec"):
        text = f"is a {old}; the kind of an instance cannot change (`optaic instance promote` makes a dataset a signal)"
        conflicts.append(Violation(entry.path, text, "KIND_CHANGED"))
        return []
    restore_credentials(as_is, desired)  # hidden from us, and the same otherwise
    owner = current.labels.get(MANAGER, "")
    mask = list(fields.differing(desired, as_is))
    is_own = owner == document.manager
    if not is_own and not adopt:
        if mask:
            owned = f"is managed by {owner!r}" if owner else "has no manager"
            text = f"{owned}, and differs in {', '.join(mask)}; pass --adopt to take it over"
            conflicts.append(Violation(entry.path, text, "MANAGED_BY_ANOTHER"))
        return []
    if owner:
        as_is.labels[MANAGER] = owner
    desired.labels[MANAGER] = document.manager
    mask = list(fields.differing(desired, as_is))
    changes = [
        FieldChange(*leaf)
        for path in mask
        for leaf in fields.leaves(path, fields.plain_at(as_is, path), fields.plain_at(desired, path))
    ]
    if not mask:
        return []
    return [
        Action(
            Verb.CHANGE, "instance", name, entry.path, project, tuple(changes), tuple(mask), desired, current
        )
    ]


def _pruned(
    documents: Iterable[Document], wanted: Mapping[Key, Any], current: Mapping[Key, Instance]
) -> dict[Key, str]:
    """Return what the documents' managers made and no document has, with the document that leaves it out."""
    managers = {(each.project, each.manager): each.path for each in documents if each.manager}
    found = {}
    for key, instance in current.items():
        owner = instance.labels.get(MANAGER, "")
        if key not in wanted and (key[0], owner) in managers:
            found[key] = managers[key[0], owner]
    return found


def _held(pruned: Mapping[Key, str], instances: Mapping[Key, Instance], known: Known) -> list[Violation]:
    """Return the instances that are to go while others, which stay, read them."""
    return [
        Violation(
            pruned[key],
            f"{key[1]} cannot be deleted because {reader} depends on it; change or remove {reader} first",
            "HAS_DEPENDANTS",
        )
        for (project, reader), instance in instances.items()
        if (project, reader) not in pruned
        for key in references.read_keys(project, instance, known)
        if key in pruned
    ]
