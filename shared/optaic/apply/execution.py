"""Reading what exists and doing what a plan says, through the client."""

from __future__ import annotations

import contextlib
import re
import uuid
from collections.abc import AsyncGenerator, Awaitable, Callable, Collection, Sequence
from typing import Any, NamedTuple

from optaic.apply import fields, references, refusals
from optaic.apply.documents import MANAGER, DefinitionEntry, Document
from optaic.apply.plan import Action, Existing, Verb
from optaic.client import AsyncClient
from optaic.definition.v1 import definition_pb2
from optaic.errors import ConflictError, DeadlineExceededError, FailedPreconditionError, OptaicError
from optaic.instance.v1.instance_pb2 import INSTANCE_STATE_DELETING, INSTANCE_STATE_PROVISIONING, Instance

REASON = "applied"
# Seconds for a creation: nobody here needs it to be ACTIVE already, the less while an outside system is away.
_PATIENCE, _SHORT_PATIENCE = 5.0, 1.0
_NAMES_NOTHING = ("name", "description", "owner", "labels", "upstream_refs")  # of definitions
_WARNINGS = ("DefinitionDeprecated",)


class Done(NamedTuple):
    """An action that was done, or checked; `is_checked` is False where a dry run cannot check it yet.

    `warnings` are what the service says about it though it did not refuse.
    """

    action: Action
    is_checked: bool
    warnings: tuple[str, ...] = ()


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
    """Return what there is of some projects, and the versions of some definitions; None means all."""
    listed = [each for each in await client.projects.list() if projects is None or each.name in projects]
    versions: dict[tuple[int, str], Sequence[definition_pb2.DefinitionVersion]] = {}
    descriptions = {}
    for each in await client.definitions.list():
        key = (int(each.kind), each.name)
        is_asked_for = definitions is None or key in definitions
        versions[key] = await client.definitions.versions(each.definition_id) if is_asked_for else ()
        descriptions[key] = each.description
    instances = [
        instance
        for project in listed
        for instance in await client.instances.list(project=project)
        if instance.state != INSTANCE_STATE_DELETING
    ]
    return Existing({each.name: each.project_id for each in listed}, versions, descriptions, instances)


async def execute(
    client: AsyncClient, actions: Sequence[Action], existing: Existing, *, dry_run: bool = False
) -> AsyncGenerator[Done]:
    """Do what a plan says, in order, and yield each action when it is done.

    Args:
        client: The connection.
        actions: The plan.
        existing: What the plan was made of.
        dry_run: Let the service check everything that it can check yet, and change nothing.

    Raises:
        OptaicError: The service refused; what was done until then stays, and the next plan goes on from there.
            A dry run goes on at once, and raises at its end what was refused.
    """
    work = _Work(client, existing, actions, dry_run)
    refused: list[tuple[Action, OptaicError]] = []
    for action in actions:
        try:
            is_checked = await work.do(action)
        except OptaicError as error:
            if not (dry_run and isinstance(error, refusals.REFUSALS)):
                raise refusals.placed(action, error) from error
            refused.append((action, error))
        else:
            yield Done(action, is_checked, tuple(work.warnings))
    refusals.refuse_all(refused)


class _Work:
    """The ids of what exists and of what was made on the way."""

    def __init__(
        self, client: AsyncClient, existing: Existing, actions: Sequence[Action], dry_run: bool
    ) -> None:
        self._client = client
        self._dry_run = dry_run
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
        self._published: list[str] = []  # names, of versions that were activated, too
        self.warnings: list[str] = []  # about what was done last
        self._moved: set[str] = set()  # versions that a dry run would have moved
        # What is read by those whom a dry run would have changed or deleted, by their ids.
        self._reads: dict[str, list[str]] = {}

    async def do(self, action: Action) -> bool:
        """Do or check one thing; return whether it was."""
        self.warnings = []
        if action.kind == "project":
            return await self._create_project(action)
        if isinstance(action.desired, DefinitionEntry):
            return await self._move_definition(action, action.desired)
        if action.verb is Verb.DELETE:
            return await self._delete(action)
        assert isinstance(action.desired, Instance)
        return await self._write(action, action.desired)

    async def _create_project(self, action: Action) -> bool:
        if self._dry_run:
            return False
        self._projects[action.name] = (await self._client.projects.create(action.name)).project_id
        return True

    async def _move_definition(self, action: Action, entry: DefinitionEntry) -> bool:
        request, calls = entry.request, self._client.definitions
        key = ((int(request.kind), request.name), request.definition_version.version)
        if action.verb is Verb.PUBLISH:
            # Macros use each other by name: what names one that is only pretended cannot be checked.
            is_early = self._is_early(request.definition_version.op_macro.expression)
            self._published.append(request.name)
            if is_early:
                return False
            version = await calls.publish(
                request.name,
                request.kind,
                request.definition_version,
                description=request.description,
                draft=entry.state == "draft",
                validate_only=self._dry_run,
            )
            self._versions[key] = version.definition_version_id
            return True
        version_id = self._versions.get(key, "")
        # Only the first step of several can be checked: the next one begins where it leads to.
        if self._dry_run and (request.name in self._published or version_id in self._moved):
            return False
        self._moved.add(version_id)
        if action.verb is Verb.ACTIVATE:
            self._published.append(request.name)
        move = {Verb.ACTIVATE: calls.activate, Verb.DEPRECATE: calls.deprecate, Verb.RETIRE: calls.retire}
        await move[action.verb](version_id, REASON, validate_only=self._dry_run)
        return True

    def _is_early(self, value: Any) -> bool:
        """Return whether a text anywhere in plain values names what a dry run only pretends to have published."""
        if not self._dry_run or not self._published:
            return False
        words = re.compile(rf"(?<!\w)({'|'.join(map(re.escape, self._published))})(?!\w)", re.IGNORECASE)
        return any(words.search(text) for text in fields.texts(value))

    async def _write(self, action: Action, desired: Instance) -> bool:
        project_id = self._projects.get(action.project)
        # A definition may be named by an expression in a config, too.
        texts = {key: value for key, value in fields.plain(desired).items() if key not in _NAMES_NOTHING}
        is_early = self._is_early(texts)
        reads = references.read_keys(action.project, desired, self._known)
        unknown = [key for key in reads if key not in self._instances and not references.is_id(key[1])]
        instance = Instance()
        instance.CopyFrom(desired)
        references.rename(
            instance,
            lambda name, _: self._instances.get((action.project, name), name),
            lambda text: self._known.is_dataset(action.project, text),
            references.bare_entity,
        )
        if action.current is not None:
            self._reads[action.current.instance_id] = references.read_names(instance)
        if project_id is None or unknown or is_early:
            return False
        if action.current is None:
            answer = await self._create(project_id, instance)
            if not self._dry_run:
                self._instances[action.project, action.name] = answer.instance_id
            self._note(answer)
            return True

        async def update(current: Instance) -> None:
            answer = await self._client.instances.update(
                current,
                _nested(instance, action.mask),
                etag=current.etag,
                reason=REASON,
                validate_only=self._dry_run,
            )
            self._note(answer)

        await self._write_as_read(action.current, update)
        return True

    async def _create(self, project_id: str, instance: Instance) -> Instance:
        """Create an instance; a service that is too busy to answer soon is asked the same again, with more time."""
        values = {each.name: fields.value_at(instance, each.name) for each, _ in instance.ListFields()}
        request_id = str(uuid.uuid4())

        async def create(timeout: float | None) -> Instance:  # noqa: ASYNC109 - the call's deadline
            return await self._client.instances.create(
                project=project_id,
                validate_only=self._dry_run,
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
        is_away = not self._dry_run and answer.state == INSTANCE_STATE_PROVISIONING
        self._patience = _SHORT_PATIENCE if is_away else _PATIENCE
        return answer

    async def _write_as_read(self, current: Instance, write: Callable[[Instance], Awaitable[None]]) -> None:
        """Write with an instance's etag; again where only what this run published gave the instance another.

        Raises:
            ConflictError: ETAG_MISMATCH; somebody else changed it since it was read.
        """
        as_read, patience = _told(current), len(self._published)
        while True:
            try:
                return await write(current)
            except ConflictError as error:
                if self._dry_run or error.reason != "ETAG_MISMATCH" or not patience:
                    raise
                patience -= 1
                current = await self._client.instances.get(current)
                if _told(current) != as_read:
                    raise

    def _note(self, answer: Instance) -> None:
        self.warnings = [each.message for each in answer.conditions if each.type in _WARNINGS]

    async def _delete(self, action: Action) -> bool:
        assert action.current is not None

        async def delete(current: Instance) -> None:
            await self._client.instances.delete(
                current, etag=current.etag, reason=REASON, validate_only=self._dry_run
            )

        try:
            await self._write_as_read(action.current, delete)
        except FailedPreconditionError as error:
            if not (self._dry_run and error.reason == "HAS_DEPENDANTS"):
                raise
            self._check_readers(action.current, error)
        self._reads[action.current.instance_id] = []
        return True

    def _check_readers(self, instance: Instance, refused: FailedPreconditionError) -> None:
        """Let a refused dry run pass where none of the readers that it names would still read the instance.

        Raises:
            FailedPreconditionError: HAS_DEPENDANTS, naming those that would.
        """
        staying = [
            each
            for each in refused.blocking
            if all(
                instance.instance_id in reads
                for reader_id, reads in self._reads.items()
                if reader_id in each.description
            )
        ]
        if staying:
            text = f"{instance.name} is read by others, which stay"
            raise FailedPreconditionError(refused.code, refused.reason, text, blocking=staying)


def _told(instance: Instance) -> tuple[Instance, str]:
    """Return what a document tells of an instance, and who manages it."""
    return references.as_document(instance, "", references.Known({}, ())), instance.labels.get(MANAGER, "")


def _nested(instance: Instance, mask: Sequence[str]) -> dict[str, Any]:
    """Return the fields of a mask as the client takes changes."""
    changes: dict[str, Any] = {}
    for path in mask:
        *parents, name = path.split(".")
        inner = changes
        for parent in parents:
            inner = inner.setdefault(parent, {})
        inner[name] = fields.value_at(instance, path)
    return changes
