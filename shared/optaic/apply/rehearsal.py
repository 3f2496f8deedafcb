"""Check a whole plan with instance-service before it is applied; changes nothing."""

from __future__ import annotations

import re
import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from optaic.apply import references, refusals
from optaic.apply.documents import DefinitionEntry
from optaic.apply.plan import Action, Existing, Verb
from optaic.apply.references import Key, Known
from optaic.client import AsyncClient
from optaic.common.v1.flow_pb2 import FlowRef
from optaic.errors import (
    Blocking,
    NotFoundError,
    OptaicError,
    PermissionDeniedError,
    Violation,
    make_error,
)
from optaic.instance.v1.instance_pb2 import Instance
from optaic.instance.v1.instance_service_pb2 import Change, ChangeVerdict

MOST_CHANGES = 2000
_CHANGE = re.compile(r"changes\[(\d+)\]")


@dataclass(frozen=True)
class Verdict:
    """The verdict on an action: refused, impossible to judge because an action before it is refused, or neither.

    `is_left_out`: the service had no time for it.
    """

    action: Action
    error: OptaicError | None = None
    is_judged: bool = True
    warnings: tuple[str, ...] = ()
    is_left_out: bool = False
    moved_flows: tuple[FlowRef, ...] = ()  # whose output would no longer be right


async def rehearse(
    client: AsyncClient,
    actions: Sequence[Action],
    existing: Existing,
    *,
    reason: str,
    warnings: Sequence[str],
) -> list[Verdict]:
    """Return a verdict on each action, in their order; `warnings` are the types of conditions to report.

    Raises:
        OptaicError: Nothing could be judged.
    """
    script = _Script(actions, existing, reason)
    try:
        found = await client.instances.rehearse([script.change(action) for action in actions])
    except PermissionDeniedError as denial:
        raise _placed(denial, actions, existing) from denial
    refused: list[Action] = []
    verdicts = []
    for action, verdict in zip(actions, found, strict=True):
        if verdict.is_not_judged:
            verdicts.append(Verdict(action, is_judged=False, is_left_out=True))
            continue
        error = script.error(verdict)
        if error is None:
            said = tuple(each.message for each in verdict.conditions if each.type in warnings)
            verdicts.append(Verdict(action, warnings=said, moved_flows=tuple(verdict.moved_flows)))
            continue
        if isinstance(error, NotFoundError) and script.needs_any(action, refused):
            verdicts.append(Verdict(action, is_judged=False))
        else:
            verdicts.append(Verdict(action, error))
        refused.append(action)
    return verdicts


def _placed(error: PermissionDeniedError, actions: Sequence[Action], existing: Existing) -> OptaicError:
    """Return a refusal of the whole plan with the place of the action that it names, and with names of projects."""
    named = _CHANGE.match(error.metadata.get("change", ""))
    if named is None:
        return error
    text = error.message.removeprefix(f"{error.metadata['change']}: ")
    for name, project_id in existing.projects.items():
        text = text.replace(project_id, name)
    action = actions[int(named[1])]
    return refusals.placed(action, type(error)(error.code, error.reason, text, (), error.metadata))


class _Script:
    """The requests of a plan, with new ids for the resources that it creates."""

    def __init__(self, actions: Sequence[Action], existing: Existing, reason: str) -> None:
        self._reason = reason
        self._projects = dict(existing.projects)
        self._instances = {key: each.instance_id for key, each in existing.named().items()}
        self._versions = {
            (key, each.version): each.definition_version_id
            for key, versions in existing.definitions.items()
            for each in versions
        }
        planned = {(a.project, a.name): a.desired for a in actions if isinstance(a.desired, Instance)}
        self._known = Known.of(existing.named(), planned)
        self._names: dict[str, str] = {}  # by the ids that were made
        for action in actions:
            if action.verb in {Verb.CREATE, Verb.PUBLISH}:
                made = str(uuid.uuid4())
                self._names[made] = action.name
                if action.kind == "project":
                    self._projects[action.name] = made
                elif isinstance(action.desired, DefinitionEntry):
                    self._versions[_version_key(action.desired)] = made
                else:
                    self._instances[action.project, action.name] = made

    def change(self, action: Action) -> Change:
        """Return an action as the call that it will be."""
        change = Change()
        if action.kind == "project":
            change.create_project.project.name = action.name
            change.assumed_id = self._projects[action.name]
        elif isinstance(action.desired, DefinitionEntry):
            self._add_definition(change, action, action.desired)
        elif action.verb is Verb.DELETE:
            assert action.current is not None
            change.delete_instance.instance_id = action.current.instance_id
            change.delete_instance.etag = action.current.etag
            change.delete_instance.reason = self._reason
        else:
            assert isinstance(action.desired, Instance)
            self._add_instance(change, action, action.desired)
        return change

    def _add_definition(self, change: Change, action: Action, entry: DefinitionEntry) -> None:
        version_id = self._versions[_version_key(entry)]
        if action.verb is Verb.PUBLISH:
            change.publish_definition.CopyFrom(entry.request)
            change.publish_definition.draft = entry.state == "draft"
            change.assumed_id = version_id
            return
        moves: dict[Verb, Any] = {
            Verb.ACTIVATE: change.activate_definition_version,
            Verb.DEPRECATE: change.deprecate_definition_version,
            Verb.RETIRE: change.retire_definition_version,
        }
        move = moves[action.verb]
        move.definition_version_id = version_id
        move.reason = self._reason

    def _add_instance(self, change: Change, action: Action, desired: Instance) -> None:
        instance = Instance()
        instance.CopyFrom(desired)
        references.rename(
            instance,
            lambda name, _: self._instances.get((action.project, name), name),
            lambda text: self._known.is_dataset(action.project, text),
            references.bare_entity,
        )
        if action.current is None:
            instance.project_id = self._projects[action.project]
            change.create_instance.instance.CopyFrom(instance)
            change.create_instance.reason = self._reason
            change.assumed_id = self._instances[action.project, action.name]
            return
        instance.instance_id, instance.etag = action.current.instance_id, action.current.etag
        change.update_instance.instance.CopyFrom(instance)
        change.update_instance.update_mask.paths.extend(action.mask)
        change.update_instance.reason = self._reason

    def needs_any(self, action: Action, refused: Sequence[Action]) -> bool:
        """Return whether an action refers to what one of others would make."""
        projects = {each.name for each in refused if each.kind == "project"}
        if action.project in projects:
            return True
        entries = [each.desired for each in refused if isinstance(each.desired, DefinitionEntry)]
        if isinstance(action.desired, DefinitionEntry):
            return any(_version_key(each) == _version_key(action.desired) for each in entries)
        if not isinstance(action.desired, Instance):
            return False
        keys: set[Key] = {(each.project, each.name) for each in refused if each.kind == "instance"}
        named = {each.request.name for each in entries}
        return bool(
            keys.intersection(references.read_keys(action.project, action.desired, self._known))
        ) or any(spec.definition_name in named for _, spec in references.definition_users(action.desired))

    def error(self, verdict: ChangeVerdict) -> OptaicError | None:
        """Return the refusal as the call would raise it, with names for the ids that were made."""
        if not verdict.code:
            return None
        return make_error(
            verdict.code,
            verdict.reason,
            self._named(verdict.message),
            [
                Violation(each.field, self._named(each.description), each.reason)
                for each in verdict.violations
            ],
            [Blocking(each.type, each.subject, self._named(each.description)) for each in verdict.blocking],
        )

    def _named(self, text: str) -> str:
        for made, name in self._names.items():
            text = text.replace(made, name)
        return text


def _version_key(entry: DefinitionEntry) -> tuple[tuple[int, str], str]:
    request = entry.request
    return (int(request.kind), request.name), request.definition_version.version
