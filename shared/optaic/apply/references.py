"""Resolve the names between documents and instances, sort by dependency, and fill in defaults."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from graphlib import CycleError, TopologicalSorter
from typing import Any, TypeAlias

from optaic.apply import fields
from optaic.apply.documents import MANAGER, Document, InstanceEntry
from optaic.definition.v1.definition_pb2 import DefinitionKind
from optaic.errors import Violation
from optaic.instance.v1.instance_pb2 import Instance
from optaic.instance.v1.schedule_pb2 import ManualSchedule, Schedule
from optaic.instance.v1.spec_pb2 import ComponentSpec, DatasetSpec
from optaic.rules.backtests import FIRST_PROCEDURE
from optaic.rules.kinds import (
    COMPONENT_KINDS,
    COMPOSED_KINDS,
    DEFAULT_COMPONENTS,
    DEFINED_KINDS,
    DEFINITION_KINDS,
    MAX_DELETED_SHARE,
)

Key: TypeAlias = tuple[str, str]  # project and name
_UUID_LENGTH = 36
_ENTITY = "entity:"  # before an entity in a universe where a dataset of the project has the same name


def is_id(text: str) -> bool:
    """Return whether a text has the form of an id."""
    return len(text) == _UUID_LENGTH and text.count("-") == 4  # noqa: PLR2004 - as UUIDs are written


def bare_entity(text: str) -> str:
    """Return an entity of a document as the services know it."""
    return text.removeprefix(_ENTITY)


@dataclass(frozen=True)
class Known:
    """The names that references may use: ids of known instances, and in a universe datasets or entities."""

    ids: Mapping[str, Key]
    datasets: Collection[Key]

    @classmethod
    def of(cls, current: Mapping[Key, Instance], planned: Mapping[Key, Instance]) -> Known:
        """Return the names of existing and planned resources."""
        together = {**current, **planned}
        return cls(
            {each.instance_id: key for key, each in current.items()},
            {key for key, each in together.items() if each.WhichOneof("spec") == "dataset"},
        )

    def key(self, project: str, text: str) -> Key:
        """Return what a reference of a project's instance means."""
        return self.ids.get(text.lower(), (project, text))

    def is_dataset(self, project: str, text: str) -> bool:
        """Return whether a text in a universe is a reference: the others are entities."""
        return is_id(text) or (project, text) in self.datasets

    def entity(self, project: str, text: str) -> str:
        """Return an entity as a project's document writes it."""
        is_marked = (project, text) in self.datasets or text.startswith(_ENTITY)
        return _ENTITY + text if is_marked else text


def rename(
    instance: Instance,
    name_of: Callable[[str, str], str],
    is_dataset: Callable[[str], bool] = is_id,
    entity_of: Callable[[str], str] = str,
) -> None:
    """Replace every reference to another instance; `name_of` gets it and its path in a document.

    `is_dataset` tells the references in a backtest's universe from entities, which `entity_of` replaces.
    """
    for reference in instance.upstream_refs:
        reference.resource_id = name_of(reference.resource_id, f"upstreams.{reference.role}")
    if instance.WhichOneof("spec") != "backtest":
        return
    if instance.backtest.HasField("assets"):
        universe = instance.backtest.assets.universe
        for index, each in enumerate(universe):
            where = f"backtest.assets.universe[{index}]"
            universe[index] = name_of(each, where) if is_dataset(each) else entity_of(each)
        assets = instance.backtest.assets
        if assets.membership_id:
            assets.membership_id = name_of(assets.membership_id, "backtest.assets.membership_id")
    if instance.backtest.HasField("signals"):
        signals = instance.backtest.signals
        if signals.primary:
            signals.primary = name_of(signals.primary, "backtest.signals.primary")
        for index, each in enumerate(signals.secondary):
            signals.secondary[index] = name_of(each, f"backtest.signals.secondary[{index}]")


def read_names(instance: Instance, is_dataset: Callable[[str], bool] = is_id) -> list[str]:
    """Return the names of all instances that an instance refers to."""
    found: list[str] = []

    def note(name: str, _: str) -> str:
        found.append(name)
        return name

    copy = Instance()
    copy.CopyFrom(instance)
    rename(copy, note, is_dataset)
    return found


def read_keys(project: str, instance: Instance, known: Known) -> list[Key]:
    """Return what an instance of a project refers to, there or elsewhere."""
    names = read_names(instance, lambda text: known.is_dataset(project, text))
    return [known.key(project, name) for name in names]


def named_instance(
    project: str,
    entry: InstanceEntry,
    wanted: Mapping[Key, Any],
    current: Mapping[Key, Instance],
    pruned: Collection[Key],
    known: Known,
    problems: list[Violation],
) -> Instance:
    """Return an entry's instance with every reference as a name, an id only of another project's instance."""

    def name_of(text: str, where: str) -> str:
        key = known.key(project, text)
        if key in wanted or (key in current and key not in pruned):
            return key[1] if key[0] == project else text
        if is_id(text) and key not in pruned:
            return text
        why = "would be deleted by --prune" if key in pruned else f"is not an instance of project {project!r}"
        problems.append(Violation(f"{entry.path}.{where}", f"{text!r} {why}", "UNKNOWN_REFERENCE"))
        return text

    instance = Instance()
    instance.CopyFrom(entry.instance)
    rename(
        instance,
        name_of,
        lambda text: known.is_dataset(project, text),
        lambda text: known.entity(project, bare_entity(text)),
    )
    return instance


def as_document(instance: Instance, project: str, known: Known) -> Instance:
    """Convert an instance to the entry of its project's document: names for ids, no output fields."""

    def name_of(text: str, _: str) -> str:
        key = known.key(project, text)
        return key[1] if key[0] == project else text

    copy = Instance()
    copy.CopyFrom(instance)
    fields.keep_given(copy)
    copy.labels.pop(MANAGER, None)
    if copy.WhichOneof("spec") == "backtest" and not copy.backtest.config.HasField("procedure"):
        copy.backtest.config.procedure = FIRST_PROCEDURE  # a new one would get the newest
    rename(copy, name_of, entity_of=lambda text: known.entity(project, text))
    _sort_upstreams(copy)
    for _, spec in definition_users(copy):
        if spec.track_newest:
            spec.ClearField("definition_version")
    return copy


def dataset_of(instance: Instance) -> DatasetSpec | None:
    """Return the composition of a dataset or signal."""
    kind = instance.WhichOneof("spec")
    if kind == "signal":
        return instance.signal.dataset
    return instance.dataset if kind == "dataset" else None


def without_defaults(instance: Instance, newest: Mapping[tuple[int, str], str]) -> Instance:
    """Return an instance of a document without the fields that equal their defaults.

    `newest` are the versions that a new instance would get, by kind and name.
    """
    copy = Instance()
    copy.CopyFrom(instance)
    if copy.schedule == Schedule(manual=ManualSchedule()):
        copy.ClearField("schedule")
    for _, spec in definition_users(copy):
        if not spec.config.fields:
            spec.ClearField("config")
    if (dataset := dataset_of(copy)) is not None:
        if dataset.max_deleted_share == MAX_DELETED_SHARE:
            dataset.ClearField("max_deleted_share")
        for slot, name in DEFAULT_COMPONENTS.items():
            version = newest.get((DefinitionKind.Value(f"DEFINITION_KIND_{slot.upper()}"), name), "")
            if getattr(dataset, slot) == ComponentSpec(definition_name=name, definition_version=version):
                dataset.ClearField(slot)  # type: ignore[arg-type]  # the stubs want literals
    return copy


def definition_users(instance: Instance) -> list[tuple[str, Any]]:
    """Return every place where an instance names a definition: its path, and what holds the name."""
    kind = instance.WhichOneof("spec")
    if kind in COMPOSED_KINDS:
        path = "dataset" if kind == "dataset" else "signal.dataset"
        dataset = instance.dataset if kind == "dataset" else instance.signal.dataset
        given = {field.name: value for field, value in dataset.ListFields()}
        return [(f"{path}.{each}", given[each]) for each in COMPONENT_KINDS if each in given]
    return [(kind, instance)] if kind in DEFINED_KINDS else []


def completed(instance: Instance, current: Instance | None) -> Instance:
    """Return an instance with its defaults filled in; a version that it does not name stays."""
    copy = Instance()
    copy.CopyFrom(instance)
    if (dataset := dataset_of(copy)) is not None:
        for slot, name in DEFAULT_COMPONENTS.items():
            component = getattr(dataset, slot)
            component.SetInParent()
            component.definition_name = component.definition_name or name
        before = dataset_of(current) if current is not None else None
        is_judged = before is not None and before.HasField("max_deleted_share")
        if is_judged and not dataset.HasField("max_deleted_share"):
            dataset.max_deleted_share = MAX_DELETED_SHARE
    if current is not None and copy.WhichOneof("spec") == current.WhichOneof("spec") == "backtest":
        config = copy.backtest.config
        if not config.HasField("procedure") and current.backtest.config.HasField("procedure"):
            config.procedure = current.backtest.config.procedure
    held = dict(definition_users(current)) if current is not None else {}
    for path, spec in definition_users(copy):
        own = held.get(path)
        if spec.track_newest:
            spec.ClearField("definition_version")
        elif own and not spec.definition_version and own.definition_name == spec.definition_name:
            spec.definition_version = own.definition_version
    if copy.schedule == Schedule(manual=ManualSchedule()):
        copy.ClearField("schedule")
    _sort_upstreams(copy)
    return copy


def _sort_upstreams(instance: Instance) -> None:
    """Order upstreams by role, as a document has them; those of one role keep their order."""
    ordered = sorted(instance.upstream_refs, key=lambda each: each.role)
    del instance.upstream_refs[:]
    instance.upstream_refs.extend(ordered)


def check_definitions(
    documents: Sequence[Document], known: Collection[tuple[int, str]], problems: list[Violation]
) -> None:
    """Record every definition that is neither there nor in the documents."""
    requests = [entry.request for document in documents for entry in document.definitions]
    all_known = {*known, *((each.kind, each.name) for each in requests)}
    for entry in (entry for document in documents for entry in document.instances):
        for path, spec in definition_users(entry.instance):
            kinds = DEFINITION_KINDS[path.rpartition(".")[2]]
            where = f"{entry.path}.{path}.definition_name" if "." in path else f"{entry.path}.definition_name"
            name = spec.definition_name
            is_known = any(
                (DefinitionKind.Value(f"DEFINITION_KIND_{kind.upper()}"), name) in all_known for kind in kinds
            )
            if not name and path.rpartition(".")[2] not in DEFAULT_COMPONENTS:
                problems.append(Violation(where, "is required", "REQUIRED"))
            elif name and not is_known:
                words = " or ".join(kinds)
                problems.append(
                    Violation(where, f"names the {words} {name!r}, which does not exist", "UNKNOWN_REFERENCE")
                )


def in_order(
    instances: Mapping[Key, Instance],
    wanted: Mapping[Key, tuple[Document, InstanceEntry]],
    known: Known,
    problems: list[Violation],
) -> list[Key]:
    """Return all instances, each after those that it reads; a cycle is recorded at an entry that is part of it.

    Instances that no document has are included: their dependencies must not close a cycle even for a moment.
    """
    sorter: TopologicalSorter[Key] = TopologicalSorter()
    for key, instance in instances.items():
        sorter.add(key, *(each for each in read_keys(key[0], instance, known) if each in instances))
    try:
        return list(sorter.static_order())
    except CycleError as error:
        cycle: list[Key] = error.args[1]
        text = " -> ".join(name for _, name in reversed(cycle))
        path = next((wanted[each][1].path for each in cycle if each in wanted), "documents")
        problems.append(
            Violation(
                f"{path}.upstreams",
                f"creates a cycle of dependencies: {text}; remove one of these upstreams",
                "CYCLE",
            )
        )
        return []
