"""Read what exists and execute a plan, through the client."""

from __future__ import annotations

import contextlib
import uuid
from collections.abc import AsyncGenerator, Awaitable, Callable, Collection, Sequence
from typing import Any, NamedTuple

from optaic.apply import fields, references, refusals
from optaic.apply.documents import MANAGER, DefinitionEntry, Document
from optaic.apply.plan import Action, Existing, Verb
from optaic.apply.rehearsal import MOST_CHANGES, Verdict, rehearse
from optaic.client import AsyncClient
from optaic.common.v1.flow_pb2 import FlowRef
from optaic.definition.v1 import definition_pb2
from optaic.errors import ConflictError, DeadlineExceededError, OptaicError
from optaic.instance.v1.instance_pb2 import (
    INSTANCE_STATE_DELETING,
    INSTANCE_STATE_PROVISIONING,
    PROJECT_STATE_DELETING,
    Instance,
)

REASON = "applied"
# Seconds for a creation: `apply` does not need the instance to be ACTIVE, even less while an outside system is away.
_PATIENCE, _SHORT_PATIENCE = 5.0, 1.0
_TOO_MUCH = ("REHEARSAL_TOO_LONG", "RESOURCE_EXHAUSTED", "DEADLINE_EXCEEDED")
_WARNINGS = ("DefinitionDeprecated",)
_LEFT_OUT = "not checked: checking the steps before it took too long; put it into a separate file to check it"
_NOT_JUDGED = (
    "the plan is too long to check completely before it is applied, so a refusal can stop it half-way"
)


class Done(NamedTuple):
    """An action that was done or checked; `is_checked` is False if it depends on a refused action or time was up.

    `warnings` are what the service says about it though it did not refuse; with the first action that is done also
    that nothing was judged before. `moved_flows`, of a check, are the existing flows whose output would no longer be right.
    """

    action: Action
    is_checked: bool
    warnings: tuple[str, ...] = ()
    moved_flows: tuple[FlowRef, ...] = ()


def projects_of(documents: Sequence[Document]) -> set[str]:
    """Return the projects that documents name."""
    return {each.project for each in documents if each.project}


def definitions_of(documents: Sequence[Document]) -> set[tuple[int, str]]:
    """Return the kinds and names of the definitions that documents publish."""
    requests = [entry.request for document in documents for entry in document.definitions]
    return {(each.kind, each.name) for each in requests}


async def read_existing(
    client: AsyncClient,
    projects: Collection[str] | None = None,
    definitions: Collection[tuple[int, str]] | None = None,
) -> Existing:
    """Read the existing state of some projects, and the versions of some definitions; None means all."""
    listed = [
        each
        for each in await client.projects.list()
        if (projects is None or each.name in projects) and each.state != PROJECT_STATE_DELETING
    ]
    versions: dict[tuple[int, str], Sequence[definition_pb2.DefinitionVersion]] = {}
    descriptions, newest = {}, {}
    for each in await client.definitions.list():
        key = (int(each.kind), each.name)
        is_asked_for = definitions is None or key in definitions
        versions[key] = await client.definitions.versions(each.definition_id) if is_asked_for else ()
        descriptions[key], newest[key] = each.description, each.newest_version.version
    instances = [
        instance
        for project in listed
        for instance in await client.instances.list(project=project)
        if instance.state != INSTANCE_STATE_DELETING
    ]
    ids = {each.name: each.project_id for each in listed}
    return Existing(ids, versions, descriptions, instances, newest)


async def execute(
    client: AsyncClient, actions: Sequence[Action], existing: Existing, *, dry_run: bool = False
) -> AsyncGenerator[Done]:
    """Execute a plan in order, and yield each action when it is done.

    The service judges the whole plan first: where it would refuse any of it, nothing is done.

    Args:
        client: The connection.
        actions: The plan.
        existing: What the plan was made of.
        dry_run: Judge only, and change nothing.

    Raises:
        OptaicError: The service refused; the error lists everything that it would refuse of the plan. Where it refuses something
            only when that is done, what was done until then stays, and the next plan continues from there.
    """
    if not actions:
        return
    verdicts = await _judge(client, actions, existing, dry_run=dry_run)
    if dry_run:
        exist = {each.instance_id for each in existing.instances}
        for each in verdicts:
            if each.error is None:
                said = (_LEFT_OUT,) if each.is_left_out else ()
                moved = tuple(flow for flow in each.moved_flows if flow.instance_id in exist)
                yield Done(each.action, each.is_judged, (*each.warnings, *said), moved)
    refusals.refuse_all([(each.action, each.error) for each in verdicts if each.error is not None])
    if dry_run:
        return
    work = _Work(client, existing, actions)
    left_out = sum(each.is_left_out for each in verdicts)
    unsaid: tuple[str, ...] = () if verdicts else (_NOT_JUDGED,)
    if left_out:
        unsaid = (f"{_NOT_JUDGED}; the last {left_out} of {len(verdicts)} steps were not checked",)
    for action in actions:
        try:
            await work.do(action)
        except OptaicError as error:
            raise refusals.placed(action, error) from error
        yield Done(action, is_checked=True, warnings=(*unsaid, *work.warnings))
        unsaid = ()


async def _judge(
    client: AsyncClient, actions: Sequence[Action], existing: Existing, *, dry_run: bool
) -> Sequence[Verdict]:
    """Return verdicts on a plan; none if it is too large to be checked at once."""
    if not dry_run and len(actions) > MOST_CHANGES:
        return ()
    try:
        return await rehearse(client, actions, existing, reason=REASON, warnings=_WARNINGS)
    except OptaicError as error:
        if dry_run or error.reason not in _TOO_MUCH:
            raise
        return ()


class _Work:
    """The ids of existing resources, and of those that the plan has created."""

    def __init__(self, client: AsyncClient, existing: Existing, actions: Sequence[Action]) -> None:
        self._client = client
        self._projects = dict(existing.projects)
        self._instances = {key: each.instance_id for key, each in existing.named().items()}
        planned = {(a.project, a.name): a.desired for a in actions if isinstance(a.desired, Instance)}
        self._known = references.Known.of(existing.named(), planned)
        self._versions = {
            (key, each.version): each.definition_version_id
            for key, versions in existing.definitions.items()
            for each in versions
        }
        self._patience = _PATIENCE
        self._published = 0  # versions, those that were activated among them
        self.warnings: list[str] = []  # about what was done last

    async def do(self, action: Action) -> None:
        """Execute one action."""
        self.warnings = []
        if action.kind == "project":
            project = await self._client.projects.create(action.name)
            self._projects[action.name] = project.project_id
        elif isinstance(action.desired, DefinitionEntry):
            await self._move_definition(action, action.desired)
        elif action.verb is Verb.DELETE:
            await self._delete(action)
        else:
            assert isinstance(action.desired, Instance)
            await self._write(action, action.desired)

    async def _move_definition(self, action: Action, entry: DefinitionEntry) -> None:
        request, calls = entry.request, self._client.definitions
        key = ((int(request.kind), request.name), request.definition_version.version)
        if action.verb is Verb.PUBLISH:
            self._published += 1
            version = await calls.publish(
                request.name,
                request.kind,
                request.definition_version,
                description=request.description,
                draft=entry.state == "draft",
            )
            self._versions[key] = version.definition_version_id
            return
        if action.verb is Verb.ACTIVATE:
            self._published += 1
        move = {Verb.ACTIVATE: calls.activate, Verb.DEPRECATE: calls.deprecate, Verb.RETIRE: calls.retire}
        await move[action.verb](self._versions[key], REASON)

    async def _write(self, action: Action, desired: Instance) -> None:
        instance = Instance()
        instance.CopyFrom(desired)
        references.rename(
            instance,
            lambda name, _: self._instances.get((action.project, name), name),
            lambda text: self._known.is_dataset(action.project, text),
            references.bare_entity,
        )
        if action.current is None:
            answer = await self._create(self._projects[action.project], instance)
            self._instances[action.project, action.name] = answer.instance_id
            self._note(answer)
            return

        async def update(current: Instance) -> None:
            answer = await self._client.instances.update(
                current, nested(instance, action.mask), etag=current.etag, reason=REASON
            )
            self._note(answer)

        await self._write_as_read(action.current, update)

    async def _create(self, project_id: str, instance: Instance) -> Instance:
        """Create an instance; a service that is too busy to answer soon is asked the same again, with more time."""
        values = {each.name: fields.value_at(instance, each.name) for each, _ in instance.ListFields()}
        request_id = str(uuid.uuid4())

        async def create(timeout: float | None) -> Instance:  # noqa: ASYNC109 - the call's deadline
            return await self._client.instances.create(
                project=project_id,
                reason=REASON,
                request_id=request_id,
                timeout=timeout,
                **values,
            )

        for patience in (self._patience, _PATIENCE):
            with contextlib.suppress(DeadlineExceededError):
                answer = await create(patience)
                break
        else:
            answer = await create(None)
        is_away = answer.state == INSTANCE_STATE_PROVISIONING
        self._patience = _SHORT_PATIENCE if is_away else _PATIENCE
        return answer

    async def _write_as_read(self, current: Instance, write: Callable[[Instance], Awaitable[None]]) -> None:
        """Write with an instance's etag; again where only what this run published gave the instance another.

        Raises:
            ConflictError: ETAG_MISMATCH; another caller changed it since it was read.
        """
        as_read, patience = _document_fields(current), self._published
        while True:
            try:
                return await write(current)
            except ConflictError as error:
                if error.reason != "ETAG_MISMATCH" or not patience:
                    raise
                patience -= 1
                current = await self._client.instances.get(current)
                if _document_fields(current) != as_read:
                    raise

    def _note(self, answer: Instance) -> None:
        self.warnings = [each.message for each in answer.conditions if each.type in _WARNINGS]

    async def _delete(self, action: Action) -> None:
        assert action.current is not None

        async def delete(current: Instance) -> None:
            await self._client.instances.delete(current, etag=current.etag, reason=REASON)

        await self._write_as_read(action.current, delete)


def _document_fields(instance: Instance) -> tuple[Instance, str]:
    """Return the fields of an instance that a document contains, and its manager."""
    return references.as_document(instance, "", references.Known({}, ())), instance.labels.get(MANAGER, "")


def nested(instance: Instance, mask: Sequence[str]) -> dict[str, Any]:
    """Return the fields of a mask as the client takes changes."""
    changes: dict[str, Any] = {}
    for path in mask:
        *parents, name = path.split(".")
        inner = changes
        for parent in parents:
            inner = inner.setdefault(parent, {})
        inner[name] = fields.value_at(instance, path)
    return changes
