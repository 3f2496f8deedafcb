"""The client's calls over dictionaries, with the service's rules on references: any moment must be allowed."""

from __future__ import annotations

import copy
import uuid
from collections.abc import Mapping, Sequence
from graphlib import TopologicalSorter
from typing import Any, cast

import grpc

from optaic.apply import fields
from optaic.apply.documents import read_documents
from optaic.apply.execution import Done, execute, nested, read_existing
from optaic.apply.plan import Action, make_plan
from optaic.apply.references import definition_users, read_names
from optaic.client import AsyncClient, messages
from optaic.definition.v1 import definition_pb2
from optaic.errors import (
    Blocking,
    ConflictError,
    DeadlineExceededError,
    FailedPreconditionError,
    OptaicError,
)
from optaic.instance.v1 import instance_pb2
from optaic.instance.v1 import instance_service_pb2 as api


def _id() -> str:
    return str(uuid.uuid4())


class Memory:
    """What there is, and a client of it."""

    def __init__(self, *pipelines: str) -> None:
        self.projects = _Projects()
        self.instances = _Instances(self)
        self.definitions = _Definitions(self.instances)
        for kind, names in (("pipeline", pipelines), ("store", ("delta",)), ("accessor", ("simple",))):
            for name in names:
                self.definitions.add(name, kind, {"version": "1.0.0", "code_ref": "a:B"})

    @property
    def client(self) -> AsyncClient:
        """The part of a client that is used."""
        return cast("AsyncClient", self)

    def live(self) -> dict[str, instance_pb2.Instance]:
        """Return all instances by name."""
        return {each.name: each for each in self.instances.by_id.values()}

    def instance(self, name: str) -> instance_pb2.Instance:
        """Return one, to look at or to change behind everybody's back."""
        return self.live()[name]


class _Projects:
    def __init__(self) -> None:
        self.all: list[instance_pb2.Project] = []

    async def list(self) -> Any:
        return self.all

    async def create(self, name: str) -> instance_pb2.Project:
        self.all.append(instance_pb2.Project(project_id=_id(), name=name))
        return self.all[-1]


class _Definitions:
    def __init__(self, instances: _Instances) -> None:
        self._instances = instances
        self.all: dict[str, list[definition_pb2.DefinitionVersion]] = {}

    def add(self, name: str, kind: Any, version: Any, state: int = 2) -> definition_pb2.DefinitionVersion:
        made = definition_pb2.DefinitionVersion()
        messages.fill(made, {"kind": kind, "definition_name": name, "definition_version_id": _id()})
        content = definition_pb2.DefinitionVersion()
        messages.fill(content, version) if isinstance(version, dict) else content.CopyFrom(version)
        made.MergeFrom(content)
        made.state = cast("Any", state)
        self.all.setdefault(name, []).append(made)
        return made

    async def list(self) -> Any:
        return [
            definition_pb2.Definition(definition_id=name, name=name, kind=versions[0].kind)
            for name, versions in self.all.items()
        ]

    async def versions(self, definition_id: str) -> Any:
        return self.all[definition_id]

    async def publish(
        self,
        name: str,
        kind: Any,
        version: Any,
        *,
        description: str,
        draft: bool,
        validate_only: bool = False,
    ) -> definition_pb2.DefinitionVersion:
        del description
        made = self.add(name, kind, version, 1 if draft else 2)
        if validate_only:
            self.all[name].remove(made)
            if not self.all[name]:
                del self.all[name]
        elif not draft:
            self._instances.follow(name)
        return made

    async def activate(self, definition_version_id: str, reason: str, *, validate_only: bool = False) -> None:
        self._move(definition_version_id, 2, reason, validate_only)

    async def deprecate(
        self, definition_version_id: str, reason: str, *, validate_only: bool = False
    ) -> None:
        self._move(definition_version_id, 3, reason, validate_only)

    async def retire(self, definition_version_id: str, reason: str, *, validate_only: bool = False) -> None:
        self._move(definition_version_id, 4, reason, validate_only)

    def _move(self, definition_version_id: str, state: int, reason: str, validate_only: bool) -> None:
        assert reason
        (version,) = [
            each
            for versions in self.all.values()
            for each in versions
            if each.definition_version_id == definition_version_id
        ]
        assert version.state == state - 1
        if not validate_only:
            version.state = cast("Any", state)
            if state == 2:
                self._instances.follow(version.definition_name)


class _Instances:
    def __init__(self, memory: Memory) -> None:
        self._memory = memory
        self.by_id: dict[str, instance_pb2.Instance] = {}
        self.state = instance_pb2.INSTANCE_STATE_ACTIVE  # of what is created
        self.slow = 0  # as many creations, and repetitions of them, are not answered in time
        self.timeouts: list[float | None] = []
        self.follows = True
        self._replies: dict[str, instance_pb2.Instance] = {}

    async def rehearse(self, changes: Sequence[api.Change]) -> Sequence[api.ChangeVerdict]:
        """Make the changes in a copy of everything, one upon the other."""
        trial = copy.deepcopy(self._memory)
        trial.instances.slow, trial.instances.follows = 0, False  # the service moves followers afterwards
        verdicts = []
        for change in changes:
            try:
                await _make(trial, change)
            except OptaicError as error:
                verdicts.append(_verdict(error))
            else:
                verdicts.append(api.ChangeVerdict())
        return verdicts

    def follow(self, definition_name: str) -> None:
        """Give a new revision to all that follow a definition, as the service does a while after a publication."""
        for each in list(self.by_id.values()) if self.follows else ():
            users = [spec for _, spec in definition_users(each)]
            if any(spec.track_newest and spec.definition_name == definition_name for spec in users):
                self.touch(each)

    def touch(self, instance: instance_pb2.Instance, **changes: Any) -> None:
        """Change an instance behind everybody's back."""
        changed = copy.deepcopy(instance)
        messages.fill(changed, changes)
        changed.revision += 1
        changed.etag = f"r{changed.revision}"
        self.by_id[changed.instance_id] = changed

    async def get(self, instance: instance_pb2.Instance) -> instance_pb2.Instance:
        return self.by_id[instance.instance_id]

    async def list(self, *, project: instance_pb2.Project) -> Any:
        return [each for each in self.by_id.values() if each.project_id == project.project_id]

    async def create(
        self,
        *,
        project: str,
        validate_only: bool = False,
        reason: str,
        request_id: str,
        timeout: float | None,  # noqa: ASYNC109 - as the client's
        **fields: Any,
    ) -> instance_pb2.Instance:
        assert reason
        self.timeouts.append(timeout)
        if request_id in self._replies:
            return self._answer(self._replies[request_id])
        instance = instance_pb2.Instance(instance_id=_id(), project_id=project, revision=1, etag="r1")
        messages.fill(instance, fields)
        for _, spec in definition_users(instance):
            spec.definition_version = spec.definition_version or "1.0.0"
            spec.config.SetInParent()
        self._check(instance)
        if not validate_only:
            self.by_id[instance.instance_id] = instance
            self._replies[request_id] = instance
            instance.state = self.state
        return self._answer(instance)

    def _answer(self, instance: instance_pb2.Instance) -> instance_pb2.Instance:
        if self.slow:
            self.slow -= 1
            raise DeadlineExceededError(grpc.StatusCode.DEADLINE_EXCEEDED, "DEADLINE_EXCEEDED", "too late")
        return instance

    async def update(
        self,
        current: instance_pb2.Instance,
        changes: Any,
        *,
        etag: str,
        reason: str,
        validate_only: bool = False,
    ) -> instance_pb2.Instance:
        assert reason
        assert etag == current.etag
        self._check_etag(current)
        changed = instance_pb2.Instance()
        changed.CopyFrom(current)
        given = instance_pb2.Instance()
        messages.fill(given, changes)
        for path in messages.paths(instance_pb2.Instance.DESCRIPTOR, changes):
            *parents, name = path.split(".")
            target: Any = changed
            source: Any = given
            for parent in parents:
                target, source = getattr(target, parent), getattr(source, parent)
            target.ClearField(name)
            part = type(source)()
            part.CopyFrom(source)
            for field, _ in source.ListFields():
                if field.name != name:
                    part.ClearField(field.name)
            target.MergeFrom(part)
            if name == "definition_name":
                target.definition_version = "1.0.0"
        assert changed != current, "a change that changes nothing"
        changed.revision += 1
        changed.etag = f"r{changed.revision}"
        self._check(changed)
        if not validate_only:
            self.by_id[changed.instance_id] = changed
        return changed

    async def delete(
        self, current: instance_pb2.Instance, *, etag: str, reason: str, validate_only: bool = False
    ) -> None:
        assert reason
        assert etag == current.etag
        self._check_etag(current)
        readers = [each for each in self.by_id.values() if current.instance_id in read_names(each)]
        if readers:
            code = grpc.StatusCode.FAILED_PRECONDITION
            blocking = [
                Blocking("HAS_DEPENDANTS", each.name, f"dataset {each.instance_id} depends on it")
                for each in readers
            ]
            raise FailedPreconditionError(code, "HAS_DEPENDANTS", "others read it", blocking=blocking)
        if not validate_only:
            del self.by_id[current.instance_id]

    def _check_etag(self, current: instance_pb2.Instance) -> None:
        if current.etag != self.by_id[current.instance_id].etag:
            raise ConflictError(grpc.StatusCode.ABORTED, "ETAG_MISMATCH", "it has changed")

    def _check(self, instance: instance_pb2.Instance) -> None:
        after = {**self.by_id, instance.instance_id: instance}
        assert set(read_names(instance)) <= set(after), "an unknown upstream"
        sorter = TopologicalSorter({key: read_names(each) for key, each in after.items()})
        sorter.prepare()  # raises for a cycle


async def _make(memory: Memory, change: api.Change) -> None:
    """Make a change; what is created gets the id that it is to have."""
    kind = change.WhichOneof("change") or ""
    request: Any = getattr(change, kind)
    if kind == "create_project":
        (await memory.projects.create(request.project.name)).project_id = change.assumed_id
    elif kind == "publish_definition":
        made = await memory.definitions.publish(
            request.name, request.kind, request.definition_version,
            description=request.description, draft=request.draft, validate_only=False,
        )  # fmt: skip
        made.definition_version_id = change.assumed_id
    elif kind == "create_instance":
        given = request.instance
        values = {each.name: fields.value_at(given, each.name) for each, _ in given.ListFields()}
        created = await memory.instances.create(
            project=values.pop("project_id"), reason=request.reason, request_id=_id(), timeout=None, **values
        )
        del memory.instances.by_id[created.instance_id]
        created.instance_id = change.assumed_id
        memory.instances.by_id[change.assumed_id] = created
    elif kind in {"update_instance", "delete_instance"}:
        given = request.instance if kind == "update_instance" else request
        current = copy.deepcopy(memory.instances.by_id[given.instance_id])
        current.etag = given.etag
        if kind == "delete_instance":
            await memory.instances.delete(current, etag=given.etag, reason=request.reason)
        else:
            changes = nested(given, request.update_mask.paths)
            await memory.instances.update(current, changes, etag=given.etag, reason=request.reason)
    else:
        move = getattr(memory.definitions, kind.removesuffix("_definition_version"))
        await move(request.definition_version_id, request.reason)


def _verdict(error: OptaicError) -> api.ChangeVerdict:
    return api.ChangeVerdict(
        code=error.code.value[0],
        reason=error.reason,
        message=error.message,
        violations=[
            api.ChangeViolation(field=each.field, description=each.description, reason=each.reason)
            for each in error.violations
        ],
        blocking=[
            api.ChangeBlocking(type=each.type, subject=each.subject, description=each.description)
            for each in error.blocking
        ],
    )


PRICES = {"name": "prices", "dataset": {"pipeline": {"definition_name": "file", "config": {"url": "a"}}}}
HALVED = {
    "name": "halved",
    "signal": {"dataset": {"pipeline": {"definition_name": "file"}}},
    "upstreams": {"input": "prices"},
}
BACKTEST = {"name": "backtest", "backtest": {"signals": {"primary": "halved", "secondary": ["prices"]}}}
SMOOTH = {
    "name": "smooth",
    "kind": "pipeline",
    "definition_version": {"version": "1.0.0", "code_ref": "a:B"},
}


def document(*instances: Mapping[str, Any], **more: Any) -> dict[str, Any]:
    """Return a document of instances."""
    return {"project": "p", "manager": "m", "instances": list(instances), **more}


def traded(*universe: str) -> dict[str, Any]:
    """Return a backtest over a universe."""
    assets = {"universe": list(universe)}
    return {"name": "SPY", "backtest": {"signals": {"primary": "halved"}, "assets": assets}}


def said(actions: Sequence[Action]) -> list[str]:
    """Return actions as words."""
    return [f"{each.verb} {each.name}" for each in actions]


async def plan(memory: Memory, *values: Any, **options: bool) -> list[Action]:
    """Return what would make everything as documents say."""
    existing = await read_existing(memory.client)
    return make_plan(read_documents(copy.deepcopy(values)), existing, **options)


async def apply(memory: Memory, *values: Any, dry_run: bool = False, **options: bool) -> list[Action]:
    """Make everything as documents say, and return what was done."""
    return [each.action for each in await done(memory, *values, dry_run=dry_run, **options)]


async def done(memory: Memory, *values: Any, dry_run: bool = False, **options: bool) -> list[Done]:
    """Do the same, and return what became of it."""
    existing = copy.deepcopy(await read_existing(memory.client))
    actions = make_plan(read_documents(copy.deepcopy(values)), existing, **options)
    return [each async for each in execute(memory.client, actions, existing, dry_run=dry_run)]
