"""Bind the upstream names in expressions: a rename changes texts, but neither meaning nor fingerprint."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any

from google.protobuf.struct_pb2 import ListValue, Struct, Value

from instance_service.domain import errors
from instance_service.jsonschema_adapter import expressions_of
from instance_service.resources.conversion import dataset_of, json_of
from instance_service.resources.instances.upstreams import Known
from instance_service.store import graph
from instance_service.store import instances as store
from optaic.definition.v1.definition_pb2 import DefinitionVersion
from optaic.expression import rename_tables
from optaic.instance.v1.instance_pb2 import Instance, UpstreamRef
from servicekit.database import Connection

Names = Mapping[str, str]  # for each upstream with two names: the name in texts -> the other one


def bind_names(instance: Instance, current: Instance | None, known: Known) -> None:
    """Set on each upstream reference its current name and its name in fingerprints.

    The name in fingerprints is the upstream's name at the time it was connected, or its id if that name is in use.
    """
    held = {ref.resource_id: ref for ref in current.upstream_refs} if current else {}
    bound: dict[str, str] = {}
    for ref in sorted(instance.upstream_refs, key=lambda ref: ref.resource_id not in held):
        if ref.resource_id not in known:
            continue  # a later check refuses it
        ref.name = known[ref.resource_id].name
        if ref.resource_id not in bound:
            before = held.get(ref.resource_id, UpstreamRef())
            wanted = before.bound_name or ref.name
            bound[ref.resource_id] = ref.resource_id if wanted in bound.values() else wanted
        ref.bound_name = bound[ref.resource_id]


def bound_names(instance: Instance) -> Names:
    """Return the names that fingerprints use for those upstreams that have other names now."""
    return {ref.name: ref.bound_name for ref in instance.upstream_refs if ref.bound_name != ref.name}


def rename_in_config(
    version: DefinitionVersion, config: Mapping[str, Any], names: Names
) -> Mapping[str, Any]:
    """Return a configuration in which expressions use the given names of upstreams."""
    texts = _texts_of(version, config, names)
    renamed: Mapping[str, Any] = _rename(config, texts, names) if texts else config
    return renamed


def _texts_of(version: DefinitionVersion, config: Mapping[str, Any], names: Names) -> Collection[str]:
    if not names:
        return ()
    return set(expressions_of(version.content_hash, json_of(version.parameters_schema), config))


def _rename(value: Any, texts: Collection[str], names: Names) -> Any:
    if isinstance(value, Mapping):
        return {key: _rename(item, texts, names) for key, item in value.items()}
    if isinstance(value, list):
        return [_rename(item, texts, names) for item in value]
    return rename_tables(value, names) if isinstance(value, str) and value in texts else value


def _rename_struct(value: Struct | ListValue, texts: Collection[str], names: Names) -> None:
    """Rename in place, so that numbers keep their representation."""
    items: Any = value.fields.values() if isinstance(value, Struct) else value.values
    item: Value
    for item in items:
        kind = item.WhichOneof("kind")
        if kind == "string_value" and item.string_value in texts:
            item.string_value = rename_tables(item.string_value, names)
        elif kind in {"struct_value", "list_value"}:
            _rename_struct(getattr(item, kind), texts, names)


async def _names_of_upstreams(
    connection: Connection, tenant_id: str, readers: Sequence[Instance]
) -> dict[str, str]:
    """Return the names of a dependant's upstreams by id; older dependants do not store them in their references."""
    refs = [ref for reader in readers for ref in reader.upstream_refs]
    names = {ref.resource_id: ref.name for ref in refs if ref.name}
    if unnamed := sorted({ref.resource_id for ref in refs} - names.keys()):
        found = map(Instance.FromString, (await store.get_snapshots(connection, tenant_id, unnamed)).values())
        names.update({each.instance_id: each.name for each in found})
    return names


def _check_distinct(
    reader: Instance, called: Names, renamed: Instance, before: str, texts: Collection[str]
) -> None:
    """Refuse a new name that a dependant's expressions already use for another of its upstreams.

    Two projects can have instances of the same name. If both names were equal, an expression could not distinguish them.
    """
    others = {
        called.get(ref.resource_id) for ref in reader.upstream_refs if ref.resource_id != renamed.instance_id
    }
    either = {before: renamed.name, renamed.name: before}
    if renamed.name in others and any(rename_tables(text, either) != text for text in texts):
        raise errors.name_taken_in_dependant(renamed.name, reader.name, reader.instance_id)


async def rename_in_dependants(
    connection: Connection, tenant_id: str, renamed: Instance, before: str
) -> None:
    """Write the new name of an instance into the expressions of its dependants; this makes no revision.

    Requires the tenant's lock.

    Raises:
        AlreadyExistsError: NAME_TAKEN; a dependant already has another upstream of that name.
    """
    found = await graph.list_dependants(connection, tenant_id, renamed.instance_id)
    versions = {
        Instance.FromString(snapshot).instance_id: DefinitionVersion.FromString(version) if version else None
        for _, snapshot, version in found
    }
    locked = await store.lock_instances(connection, tenant_id, sorted(versions))
    readers = [Instance.FromString(snapshot) for snapshot in locked]
    called = await _names_of_upstreams(connection, tenant_id, readers)
    changed = [
        reader
        for reader in readers
        if _rename_in(reader, versions[reader.instance_id], called, renamed, before)
    ]
    configs = {
        dataset.pipeline_instance_id: dataset.pipeline.config
        for reader in changed
        if (dataset := dataset_of(reader)) is not None
    }
    pipelines = map(Instance.FromString, await store.lock_instances(connection, tenant_id, list(configs)))
    for pipeline in pipelines:
        pipeline.config.CopyFrom(configs[pipeline.instance_id])
        changed.append(pipeline)
    texts = [
        (item.instance_id, item.revision, item.SerializeToString(), json_of(item.config)) for item in changed
    ]
    await store.rewrite_texts(connection, tenant_id, texts)


def _rename_in(
    reader: Instance, version: DefinitionVersion | None, called: Names, renamed: Instance, before: str
) -> bool:
    """Write the new name into one dependant, in place; return whether it used the old one."""
    refs = [ref for ref in reader.upstream_refs if ref.resource_id == renamed.instance_id]
    for ref in refs:
        ref.bound_name = ref.bound_name or before
        ref.name = renamed.name
    if refs and version is not None:
        dataset = dataset_of(reader)
        config = dataset.pipeline.config if dataset is not None else reader.config
        names = {before: renamed.name}
        if texts := _texts_of(version, json_of(config), names):
            _check_distinct(reader, called, renamed, before, texts)
            _rename_struct(config, texts, names)
    return bool(refs)
